#[derive(KeyPart)]
#[sync(krate = "x", crate = "my kvsync")]
struct Id(i32);
