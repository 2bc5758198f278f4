#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user>:<>:<ide>:<id")]
struct User {
    id: i32,
    uuid: String,
}
