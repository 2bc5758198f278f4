#[derive(Syncable)]
#[sync_key(name = "uuid", fmt = "<uuid>:user")]
#[sync_key(name = "id", fmt = "<id>")]
struct User {
    id: i32,
    uuid: String,
}
