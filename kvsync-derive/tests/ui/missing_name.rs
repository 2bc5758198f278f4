#[derive(Syncable)]
#[sync_key(fmt = "user:id:<id>")]
struct User {
    id: i32,
    uuid: String,
}
