#[derive(Syncable)]
#[sync_key(name = "ab", fmt = "user:<a>:<b>")]
#[sync_key(name = "ba", fmt = "user:<b>-<a>")]
#[sync(primary_key(a))]
struct User {
    a: String,
    b: i32,
}
