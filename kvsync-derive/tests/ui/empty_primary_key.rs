#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync(primary_key())]
struct User {
    id: i32,
    uuid: String,
}
