#[derive(Syncable)]
#[sync_key(name = "ID", fmt = "user:id:<idd>")]
#[sync_key(name = "uuid", fmt = "user:uuid:<uuid")]
#[sync(ttl = "soon", primary_key(idx))]
struct User {
    id: i32,
    #[serde(skip)]
    uuid: String,
}
