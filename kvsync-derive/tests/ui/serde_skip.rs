#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
struct User {
    id: i32,
    #[serde(skip)]
    a: i32,
    #[serde(skip_serializing)]
    b: i32,
    #[serde(default, skip_deserializing)]
    c: i32,
}
