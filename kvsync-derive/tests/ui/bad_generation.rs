#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync(generation = 4294967296)]
struct User {
    id: i32,
    uuid: String,
}
