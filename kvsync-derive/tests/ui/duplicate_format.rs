#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync_key(name = "again", fmt = "user:id:<id>")]
struct User {
    id: i32,
    uuid: String,
}
