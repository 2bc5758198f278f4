#[derive(Syncable)]
#[sync_key(name = "kind", fmt = "user:<id>:<r#type>")]
struct User {
    id: i32,
    r#type: String,
}
