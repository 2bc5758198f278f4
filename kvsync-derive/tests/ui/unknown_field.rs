#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync_key(name = "uuid", fmt = "user:uuid:<uiid>")]
#[sync_key(name = "mail", fmt = "user:mail:<email>")]
struct User {
    id: i32,
    uuid: String,
    name: String,
}
