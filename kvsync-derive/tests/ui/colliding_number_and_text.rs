#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:<id>")]
#[sync_key(name = "name", fmt = "user:<name>")]
struct User {
    id: i32,
    name: String,
}
