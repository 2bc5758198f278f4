#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
union User {
    id: i32,
}
