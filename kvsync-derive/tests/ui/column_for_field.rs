#[derive(Syncable)]
#[sync_key(name = "uuid", fmt = "user:uuid:<public_id>")]
struct User {
    id: i32,
    #[diesel(column_name = public_id)]
    uuid: String,
}
