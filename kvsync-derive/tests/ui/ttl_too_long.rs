#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync(ttl = "40000d")]
struct User {
    id: i32,
    uuid: String,
}
