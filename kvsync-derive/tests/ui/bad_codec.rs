#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync(codec = (Json, Bson))]
struct User {
    id: i32,
    uuid: String,
}
