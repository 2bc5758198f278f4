#[derive(Syncable)]
#[sync_key(name = "address", fmt = "user:address:<address>")]
struct User {
    id: i32,
    #[diesel(embed)]
    address: Address,
}
