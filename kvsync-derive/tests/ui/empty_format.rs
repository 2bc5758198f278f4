#[derive(Syncable)]
#[sync_key(name = "id", fmt = "")]
struct User {
    id: i32,
    uuid: String,
}
