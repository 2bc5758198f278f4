#[derive(Syncable)]
#[sync_key(name = "uuid", fmt = "user:uuid:<uuid>")]
struct User {
    uuid: String,
}
