#[derive(Syncable)]
#[sync_key(name = "uuid", fmt = "user:uuid:<uuid>")]
#[sync(primary_key(id))]
struct User {
    #[diesel(embed)]
    id: Id,
    uuid: String,
}
