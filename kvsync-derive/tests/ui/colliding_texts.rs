#[derive(Syncable)]
#[sync_key(name = "name", fmt = "user:<name>")]
#[sync_key(name = "uuid", fmt = "user:uuid:<uuid>")]
struct User {
    id: i32,
    name: String,
    uuid: String,
}
