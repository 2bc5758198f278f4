#[derive(Syncable)]
#[serde(rename_all(serialize = "camelCase"))]
#[sync_key(name = "id", fmt = "user:id:<id>")]
struct User {
    id: i32,
    user_name: i32,
}
