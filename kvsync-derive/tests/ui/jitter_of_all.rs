#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync(ttl = "1d", jitter = "100%")]
struct User {
    id: i32,
    uuid: String,
}
