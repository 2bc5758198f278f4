#[derive(KeyPart)]
struct Point(i32, i32);
