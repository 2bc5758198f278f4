#[derive(KeyPart)]
struct Unit;
