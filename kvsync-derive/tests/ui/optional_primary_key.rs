#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
struct User {
    id: Option<i32>,
}
