#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync(ttl = "a year")]
struct User {
    id: i32,
}
