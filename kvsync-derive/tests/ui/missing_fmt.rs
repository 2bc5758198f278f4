#[derive(Syncable)]
#[sync_key(name = "id")]
struct User {
    id: i32,
    uuid: String,
}
