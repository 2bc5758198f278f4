#[derive(Syncable)]
#[sync_key(nam = "id", fmt = "user:id:<id>")]
#[sync_key(name = "uuid", fmt = "user:uuid:<uuid>", unique)]
#[sync(time_to_live = "1d", jiter = "10%")]
struct User {
    id: i32,
    uuid: String,
}
