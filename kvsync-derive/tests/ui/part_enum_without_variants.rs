#[derive(KeyPart)]
enum Never {}
