#[derive(Syncable)]
#[sync_key(name = "city", fmt = "user:city:<address.city>")]
#[sync_key(name = "part", fmt = "user:part:<uuid.hi>")]
struct User {
    id: i32,
    uuid: String,
    #[diesel(embed)]
    address: Address,
}
