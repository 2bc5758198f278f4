#[derive(Syncable)]
#[sync_key(name = "id", fmt = "user:<id>")]
#[sync_key(name = "role", fmt = "user:<role>")]
#[sync_key(name = "flag", fmt = "user:<flag>")]
struct User {
    id: Uuid,
    role: Role,
    flag: bool,
}
