#[derive(Syncable)]
#[sync_key(name = "lower", fmt = "user:lower:<lower>")]
struct User {
    id: i32,
    #[diesel(select_expression = lower(users::name))]
    lower: String,
}
