#[derive(Syncable)]
#[sync_key]
#[sync_key()]
#[sync_key = "user:<id>"]
#[sync]
struct User {
    id: i32,
    uuid: String,
}
