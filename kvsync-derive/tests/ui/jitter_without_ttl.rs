#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync(jitter = "10%")]
struct User {
    id: i32,
    uuid: String,
}
