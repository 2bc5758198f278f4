#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:id:<id>", ttl = "1d")]
#[sync(immutable)]
struct User {
    id: i32,
    uuid: String,
}
