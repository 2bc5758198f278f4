#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync_key(name = "id", fmt = "user:uuid:<uuid>")]
struct User {
    id: i32,
    uuid: String,
}
