#[derive(Syncable)]
#[sync_key(name = "id", fmat = "user:id:<id>")]
#[sync(tll = "1d")]
enum User {
    A,
}
