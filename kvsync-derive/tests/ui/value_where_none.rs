#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync_key(name = "uuid", fmt = "user:uuid:<uuid>", immutable = true, assume_unique(yes))]
struct User {
    id: i32,
    uuid: String,
}
