#[derive(Syncable)]
#[sync_key(name = "both", fmt = "user:<uuid>%<id>")]
struct User {
    id: i32,
    uuid: String,
}
