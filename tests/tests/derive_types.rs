//! What the compiler says of a model's types: mistakes that no macro can see, told in our words, at the
//! user's token, once.
//!
//! One crate is checked by cargo. Only our own words and the lines they stand at are looked at, so that
//! another compiler version does not matter.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each line with a mistake ends in `//~` and words of its one error.
const SOURCE: &str = r#"#![allow(unused)]
use kvsync::{KeyPart, KvSync, Syncable};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Syncable)]
#[sync_key(name = "ratio", fmt = "part:ratio:<ratio>")]
#[sync_key(name = "tags", fmt = "part:tags:<tags>")]
#[sync_key(name = "maybe", fmt = "part:maybe:<maybe>")]
struct Parts {
    id: i32,
    ratio: f64, //~ `f64` cannot be a part of a sync key
    tags: std::collections::HashMap<String, i32>, //~ `HashMap<String, i32>` cannot be a part of a sync key
    maybe: Option<f32>, //~ `f32` cannot be a part of a sync key
}

#[derive(Serialize, Deserialize, Syncable)]
#[sync_key(name = "id", fmt = "home:id:<id>")]
struct Home {
    id: Role, //~ `Role` cannot be a part of a sync key
}

#[derive(Clone, Serialize, Deserialize)]
enum Role {
    Admin,
}

#[derive(KeyPart)]
struct Newtype(f64); //~ `f64` cannot be a part of a sync key

// A mistake in an attribute is one error, wherever the model is used.
#[derive(Serialize, Deserialize, Syncable)]
#[sync_key(name = "id", fmt = "wrong:id:<id>")]
#[sync_key(name = "uuid", fmt = "wrong:uuid:<uid>")] //~ did you mean `<uuid>`?
struct Wrong {
    id: i32,
    uuid: String,
}

#[derive(Serialize, Deserialize, Syncable)]
#[sync_key(name = "id", fmt = "enum:id:<id>")]
enum Enum { //~ a synced model is a struct
    Variant,
}

#[derive(Syncable)]
#[sync_key(name = "id", fmt = "borrowed:id:<id>")]
struct Borrowed<'a> { //~ a synced model has no lifetime parameters
    id: &'a str,
}

struct Plain;

fn main() {
    let kv: KvSync = panic!();
    let _: Option<Wrong> = Wrong::fetch_by_uuid(&kv, "x").unwrap();
    let _ = Wrong::lookup_by_uuid(&kv, 1);
    let _ = Wrong::fetch_many_by_uuid(&kv, ["x"]);
    let _ = Wrong::fetch_by_id(&kv, 1);
    let _ = kv.fetch::<Enum>("id", 1);
    let _ = Parts::fetch_by_ratio(&kv, 1.0);
    let _ = kv.fetch::<Plain>("id", 1); //~ `Plain` is not a synced model
}
"#;

#[test]
fn a_type_that_does_not_fit_is_told_at_its_token() {
    let expected: Vec<(usize, &str)> =
        (1..).zip(SOURCE.lines()).filter_map(|(line, text)| Some((line, text.split_once("//~ ")?.1))).collect();
    let told = errors(&crate_of(SOURCE));
    for (line, words) in &expected {
        let here: Vec<_> = told.iter().filter(|(other, _)| other == line).collect();
        assert!(!here.is_empty(), "nothing is told at line {line}: {told:#?}");
        assert!(here.iter().all(|(_, text)| text.contains(words)), "line {line} says {here:#?} and not: {words}");
    }
    let more: Vec<_> = told.iter().filter(|(line, _)| expected.iter().all(|(other, _)| other != line)).collect();
    assert!(more.is_empty(), "errors that follow from others: {more:#?}");
    // A type that is not a model lacks serde too, so that the compiler says this one twice or thrice.
    let others = told.iter().filter(|(_, text)| !text.contains("`Plain`")).count();
    assert_eq!(others, expected.len() - 1, "one mistake, one error: {told:#?}");
}

/// A crate with this source, in a place that is kept, so that its dependencies are built once.
fn crate_of(source: &str) -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("derive-types");
    fs::create_dir_all(root.join("src")).unwrap();
    let manifest = format!(
        "[package]\nname = \"derive-types\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[dependencies]\n\
         kvsync = {{ path = '{}', default-features = false }}\nserde = {{ version = \"1\", features = [\"derive\"] }}\n\n\
         [workspace]\n",
        workspace.join("kvsync").display()
    );
    fs::write(root.join("Cargo.toml"), manifest).unwrap();
    fs::copy(workspace.join("Cargo.lock"), root.join("Cargo.lock")).unwrap();
    fs::write(root.join("src/main.rs"), source).unwrap();
    root
}

/// Every error in the crate's own source: its line and what it says.
fn errors(root: &Path) -> Vec<(usize, String)> {
    // Offline: whatever this needs, the test itself was built with.
    let output = Command::new(env!("CARGO"))
        .args(["check", "--offline", "--quiet", "--message-format", "short", "--color", "never"])
        .current_dir(root)
        .env("CARGO_TARGET_DIR", root.join("target"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let found: Vec<(usize, String)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("src/main.rs:"))
        .filter_map(|line| {
            let (number, message) = line.split_once(':')?;
            message.contains(" error").then(|| (number.parse().unwrap(), message.to_owned()))
        })
        .collect();
    assert!(!found.is_empty(), "cargo says:\n{text}");
    found
}
