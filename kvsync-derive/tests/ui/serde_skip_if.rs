#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
struct User {
    id: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    fine: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none", default = "seven")]
    a: Option<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    b: Vec<i32>,
}
