#[derive(Syncable)]
#[sync_key(name = "uuid", fmt = "user:uuid:<uuid>")]
#[sync(primary_key(uid, number, uuid, uuid))]
struct User {
    uuid: String,
}
