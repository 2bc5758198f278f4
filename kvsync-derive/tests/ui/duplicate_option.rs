#[derive(Syncable)]
#[sync_key(name = "id", name = "id2", fmt = "user:id:<id>", fmt = "x:<id>", immutable, immutable)]
#[sync(ttl = "1d", ttl = "2d")]
#[sync(ttl = "3d")]
struct User {
    id: i32,
    uuid: String,
}
