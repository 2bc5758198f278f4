#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:<id>")]
#[sync_key(name = "old_id", fmt = "user:<old_id>")]
struct User {
    id: i32,
    old_id: Option<u64>,
}
