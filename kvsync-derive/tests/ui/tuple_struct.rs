#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
struct User(i32, String);
