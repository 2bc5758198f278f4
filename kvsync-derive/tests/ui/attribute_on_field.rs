#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
struct User {
    #[sync_key(name = "id")]
    id: i32,
    #[sync(skip)]
    uuid: String,
}
