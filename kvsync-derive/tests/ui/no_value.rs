#[derive(Syncable)]
#[sync_key(name = , fmt = "user:id:<id>")]
#[sync_key(name = "uuid", fmt =)]
struct User {
    id: i32,
    uuid: String,
}
