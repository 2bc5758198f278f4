#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync(live_if = " ")]
struct User {
    id: i32,
    uuid: String,
}
