#[derive(Syncable)]
#[sync_key(name = "both", fmt = "user:<id><uuid>")]
struct User {
    id: i32,
    uuid: String,
}
