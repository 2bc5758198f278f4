#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
struct User {
    id: i32,
    #[serde(rename(serialize = "a1", deserialize = "a2"))]
    a: i32,
    #[serde(rename(serialize = "b1"), alias = "b1")]
    fine: i32,
}
