#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync(crate = my::kvsync)]
struct User {
    id: i32,
    uuid: String,
}
