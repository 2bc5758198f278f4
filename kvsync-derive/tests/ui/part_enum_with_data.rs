#[derive(KeyPart)]
enum Role {
    Admin,
    User(i32),
    Guest { since: i32 },
}
