#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync(ttl = "365")]
struct User {
    id: i32,
    uuid: String,
}
