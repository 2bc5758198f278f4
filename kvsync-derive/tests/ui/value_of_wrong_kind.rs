#[derive(Syncable)]
#[sync_key(name = id, fmt = 7)]
#[sync_key(name, fmt("user:<id>"))]
#[sync(ttl = 365, generation = "1", codec = "Json", live_if = true, primary_key = "id")]
struct User {
    id: i32,
    uuid: String,
}
