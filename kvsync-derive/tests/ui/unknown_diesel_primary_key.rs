#[derive(Syncable)]
#[diesel(table_name = users, primary_key(uid))]
#[sync_key(name = "uuid", fmt = "user:uuid:<uuid>")]
struct User {
    #[diesel(column_name = uid2)]
    uuid: String,
}
