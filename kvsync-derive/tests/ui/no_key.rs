#[derive(Syncable)]
#[sync(ttl = "1d")]
struct User {
    id: i32,
    uuid: String,
}
