//! What the derives say of mistakes: every file of `tests/ui` against its expectation.
//!
//! The derives run here as plain functions, so that what is pinned is ours alone: the place of each
//! error, the source text it points at, and its message. Run with `KVSYNC_BLESS=1` to write the
//! expectations anew; then read the difference.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use quote::ToTokens;
use syn::DeriveInput;

use crate::{derive_key_part, derive_syncable};

#[test]
fn every_mistake_is_told_at_its_token() {
    let bless = env::var_os("KVSYNC_BLESS").is_some();
    let cases = files("rs");
    let known: BTreeSet<PathBuf> = cases.iter().map(|case| case.with_extension("stderr")).collect();
    let mut wrong = String::new();
    for orphan in files("stderr").difference(&known) {
        writeln!(wrong, "{} has no source", orphan.display()).unwrap();
    }
    assert!(cases.len() >= 40, "only {} cases", cases.len());
    for case in cases {
        let found = errors(&fs::read_to_string(&case).unwrap());
        let pinned = case.with_extension("stderr");
        if found.is_empty() {
            writeln!(wrong, "{} has no mistake", case.display()).unwrap();
        } else if bless {
            fs::write(pinned, found).unwrap();
        } else if fs::read_to_string(&pinned).unwrap_or_default() != found {
            writeln!(wrong, "{} now says:\n{found}", case.display()).unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}\nif this is meant, run again with KVSYNC_BLESS=1");
}

#[test]
fn every_path_begins_where_crate_says() {
    let attributes = "#[sync_key(name = \"id\", fmt = \"a:<id>\")] #[sync(crate = \"some::path\", ttl = \"1d\")]";
    for source in
        ["struct A { id: i32, name: Option<String> }", "struct A { id: i32 }", "enum A { B }", "union A { id: i32 }"]
    {
        let input: DeriveInput = syn::parse_str(&format!("{attributes} {source}")).unwrap();
        for code in [derive_syncable(&input).0, derive_key_part(&input).0] {
            let code = code.to_string();
            assert!(code.contains("some :: path") && !code.contains("kvsync"), "{code}");
        }
    }
}

fn files(extension: &str) -> BTreeSet<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|found| found == extension)).collect()
}

/// The errors of a derive on this source: line and column, the text pointed at, the message.
fn errors(source: &str) -> String {
    let input: DeriveInput = syn::parse_str(source).unwrap();
    let derives = input.attrs.iter().map(|attr| attr.to_token_stream().to_string()).collect::<String>();
    let (code, errors) = if derives.contains("KeyPart") { derive_key_part(&input) } else { derive_syncable(&input) };
    assert!(!code.is_empty(), "even a mistake leaves an implementation");
    let mut told = String::new();
    let mut errors: Vec<_> = errors.into_iter().flatten().collect();
    errors.sort_by_key(|error| (error.span().start().line, error.span().start().column));
    for error in errors {
        let (start, end) = (error.span().start(), error.span().end());
        let message = error.to_string();
        assert!(!message.contains('\n') && !message.ends_with('.'), "one line, no full stop: {message}");
        let line = source.lines().nth(start.line - 1).unwrap();
        let until = if start.line == end.line { end.column } else { line.chars().count() };
        let token: String = line.chars().skip(start.column).take(until - start.column).collect();
        writeln!(told, "{}:{} {token}\n    {message}", start.line, start.column + 1).unwrap();
    }
    told
}
