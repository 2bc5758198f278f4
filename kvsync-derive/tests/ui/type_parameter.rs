#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
struct User<T: Clone, const N: usize> {
    id: i32,
    name: [T; N],
}
