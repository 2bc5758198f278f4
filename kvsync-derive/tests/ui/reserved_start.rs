#[derive(Syncable)]
#[sync_key(name = "id", fmt = "@user:<id>")]
#[sync_key(name = "uuid", fmt = "~<uuid>")]
#[sync_key(name = "both", fmt = "!<id>:<uuid>")]
#[sync_key(name = "data", fmt = "=user:<id>")]
struct User {
    id: i32,
    uuid: String,
}
