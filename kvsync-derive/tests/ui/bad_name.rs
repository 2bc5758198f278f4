#[derive(Syncable)]
#[sync_key(name = "user id", fmt = "user:a:<id>")]
#[sync_key(name = "UUID", fmt = "user:b:<id>")]
#[sync_key(name = "r#type", fmt = "user:c:<id>")]
#[sync_key(name = "", fmt = "user:d:<id>")]
#[sync_key(name = "é", fmt = "user:e:<id>")]
struct User {
    id: i32,
    uuid: String,
}
