#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:id:<>")]
#[sync_key(name = "uuid", fmt = "user:uuid:< >")]
struct User {
    id: i32,
    uuid: String,
}
