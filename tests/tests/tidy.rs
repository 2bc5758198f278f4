//! The floors of the house: which file may use which.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up. A file uses its own floor and those above it in this list.
const FLOORS: &[&[&str]] = &[
    &["error", "key", "version", "clock", "sync", "serial", "status", "figures"],
    &["bridge"],
    &["nats"],
    &["codec"],
    &["model"],
    &["change", "envelope", "report"],
    &["record"],
    &["store"],
    &["transport"],
    &["worker"],
    &["consumer"],
    &["upkeep"],
    &["fetch"],
    &["capture"],
    &["kvsync", "fuzzing"],
    &["cli"],
];

/// Parts of the house that never name each other.
const STRANGERS: &[(&str, &str)] = &[
    ("capture", "store"),
    ("capture", "worker"),
    ("capture", "fetch"),
    ("capture", "envelope"),
    ("capture", "record"),
    ("worker", "fetch"),
    ("fetch", "worker"),
    ("fetch", "transport"),
    ("upkeep", "fetch"),
    ("fetch", "upkeep"),
    ("capture", "upkeep"),
    ("upkeep", "capture"),
    ("transport", "store"),
    ("consumer", "capture"),
    ("consumer", "fetch"),
    ("consumer", "upkeep"),
];

/// What is no store among the parts of `store`; stores never name each other.
const NO_STORES: &[&str] = &["mod", "conformance", "data", "layer", "ordered", "steps"];

/// What is no transport to elsewhere among the parts of `transport`; these never name each other.
const NO_TRANSPORTS: &[&str] = &["mod", "broker", "conformance", "inbox", "memory", "message", "outbox", "queue"];

/// A vendor's crate is named in its own place only. The crates that the feature of a store or a transport turns on are
/// named in the folders of that name, without a line here: the store's, the transport's, and what the two share.
const VENDORS: &[(&str, &str)] = &[
    ("metrics", "store/layer"),
    ("metrics", "consumer"),
    ("metrics", "figures"),
    ("moka", "store/layer"),
    ("tokio", "bridge"),
    ("tokio", "transport/inbox"),
    ("diesel", "capture"),
    ("bson", "codec"),
    ("serde_json", "codec"),
    ("serde_json", "cli"),
    ("clap", "cli"),
    ("indicatif", "cli"),
    ("rmp_serde", "codec"),
    ("moka", "store/layer"),
    ("metrics", "store/layer"),
];

#[test]
fn a_file_uses_only_what_stands_above_it() {
    let mut broken = String::new();
    for (file, text) in sources() {
        let Some(own) = floor_of(&file) else { continue };
        for used in crate_modules(&text) {
            match FLOORS.iter().position(|floor| floor.contains(&used.as_str())) {
                Some(floor) if floor > own => writeln!(broken, "{file} uses `{used}`, which stands below it").unwrap(),
                Some(_) => {}
                None => writeln!(broken, "{file} uses `{used}`, which has no floor: give it one in FLOORS").unwrap(),
            }
        }
    }
    assert!(broken.is_empty(), "{broken}");
}

/// The README names a test for each promise: `file::test`, or `file` for all of it, of a binary or of a module.
#[test]
fn every_test_that_the_readme_names_is_there() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let begin = readme.find("## What it promises").unwrap();
    let promises = &readme[begin..begin + readme[begin..].find("## What it does not do").unwrap()];
    let cells = promises.lines().filter(|line| line.starts_with("| |")).skip(1);
    let mut named = 0;
    for name in cells.flat_map(|line| line.split('`').skip(1).step_by(2)).filter(|name| !name.contains(' ')) {
        named += 1;
        let (file, test) = name.split_once("::").unwrap_or((name, ""));
        if file == "worker" {
            assert!(root().join("kvsync/src").join(name.replace("::", "/")).is_dir(), "README.md names {name}");
            continue;
        }
        let tests = tests_of(file);
        assert!(!tests.is_empty(), "README.md names {name}, and there are no tests of that name");
        assert!(test.is_empty() || tests.contains(&format!("fn {test}(")), "README.md names {name}, which is no test");
    }
    assert!(named > 20, "the table of promises was not found");
}

/// The page about queue, outbox and broker names them as well, and cases of the suite of brokers.
#[test]
fn every_test_that_the_page_of_transports_names_is_there() {
    let page = fs::read_to_string(root().join("kvsync/src/transport/mod.rs")).unwrap();
    let begin = page.find("//! What is lost when a part is killed").unwrap();
    let shown = &page[begin..begin + page[begin..].find("//! - **The queue**").unwrap()];
    let mut cases = Vec::new();
    collect(&root().join("kvsync/src/transport/conformance"), &mut cases);
    let cases: String = cases.into_iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let mut named = 0;
    for name in shown.split('`').skip(1).step_by(2) {
        if let Some((file, test)) = name.split_once("::") {
            assert!(tests_of(file).contains(&format!("fn {test}(")), "the page names {name}, which is no test");
            named += 1;
        } else if name.matches('_').count() > 3 {
            assert!(cases.contains(&format!("\"{name}\"")), "the page names {name}, which is no case of the brokers");
            named += 1;
        }
    }
    assert!(named > 10, "the tests were not found");
}

#[test]
fn every_file_has_a_floor() {
    let homeless: Vec<String> =
        sources().into_iter().map(|(file, _)| file).filter(|file| file != "lib" && floor_of(file).is_none()).collect();
    assert!(homeless.is_empty(), "no floor in FLOORS for {homeless:?}");
}

#[test]
fn strangers_do_not_meet() {
    let mut broken = String::new();
    let (stores, transports) = (parts_of("store", NO_STORES), parts_of("transport", NO_TRANSPORTS));
    let pairs = |all: &[String]| -> Vec<(String, String)> {
        all.iter().flat_map(|one| all.iter().map(move |other| (one.clone(), other.clone()))).collect()
    };
    let pairs = [pairs(&stores), pairs(&transports)].concat();
    let strangers: Vec<(&str, &str)> = pairs
        .iter()
        .filter(|(one, other)| one != other)
        .map(|(one, other)| (one.as_str(), other.as_str()))
        .chain(STRANGERS.iter().copied())
        .collect();
    for (file, text) in sources() {
        for (one, other) in strangers.iter().filter(|(one, _)| within(&file, one)) {
            let path = format!("crate::{}", other.replace('/', "::"));
            if mentions(&text, &path) {
                writeln!(broken, "{file} ({one}) names {path}").unwrap();
            }
        }
    }
    assert!(broken.is_empty(), "{broken}");
}

/// Every store, as `store/redis`, or every transport.
fn parts_of(floor: &str, but: &[&str]) -> Vec<String> {
    let folder = root().join("kvsync/src").join(floor);
    let parts = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let names = parts.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned());
    names.filter(|name| !but.contains(&name.as_str())).map(|name| format!("{floor}/{name}")).collect()
}

#[test]
fn a_vendor_is_named_in_its_own_folder_only() {
    let mut broken = String::new();
    let mut vendors = vendors_of_features();
    assert!(vendors.len() > 2, "the features of stores were not found: {vendors:?}");
    vendors.extend(VENDORS.iter().map(|(vendor, home)| ((*vendor).to_owned(), (*home).to_owned())));
    for (file, text) in sources() {
        let at_home = |vendor: &str| vendors.iter().any(|(of, folder)| of == vendor && within(&file, folder));
        for (vendor, _) in vendors.iter().filter(|(vendor, _)| !at_home(vendor)) {
            let named = code(&text).any(|line| {
                line.starts_with(&format!("use {vendor}::"))
                    || line.contains(&format!(" {vendor}::"))
                    || line.contains(&format!("({vendor}::"))
            });
            if named {
                writeln!(broken, "{file} names the crate `{vendor}`").unwrap();
            }
        }
    }
    assert!(broken.is_empty(), "{broken}");
}

#[test]
fn a_long_file_says_why() {
    let long: Vec<String> = sources()
        .into_iter()
        .filter(|(_, text)| text.lines().take_while(|line| !line.contains("#[cfg(test)]")).count() > 400)
        .filter(|(_, text)| {
            !text.lines().take_while(|line| line.starts_with("//!")).any(|line| line.contains("long because"))
        })
        .map(|(file, text)| format!("{file}: {} lines", text.lines().count()))
        .collect();
    assert!(long.is_empty(), "over 400 lines and no sentence `long because ..` in the head: {long:?}");
}

/// The crates that the features of stores and transports turn on, each with every folder of the feature's name:
/// `redis-tls` is of `redis`.
fn vendors_of_features() -> Vec<(String, String)> {
    let manifest = fs::read_to_string(root().join("kvsync/Cargo.toml")).unwrap();
    let parts = [parts_of("store", NO_STORES), parts_of("transport", NO_TRANSPORTS)].concat();
    let mut vendors = Vec::new();
    for (feature, turns_on) in manifest.lines().filter_map(|line| line.split_once(" = [")) {
        let name = feature.split('-').next().unwrap();
        let folders = ["store", "transport"].map(|floor| format!("{floor}/{name}"));
        if !folders.iter().any(|folder| parts.contains(folder)) {
            continue;
        }
        for vendor in turns_on.split('"').filter_map(|part| part.strip_prefix("dep:")) {
            let homes = folders.iter().cloned().chain([name.to_owned()]);
            vendors.extend(homes.map(|home| (vendor.replace('-', "_"), home)));
        }
    }
    vendors
}

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All the text of a test binary, or of a module of one.
fn tests_of(name: &str) -> String {
    let tests = root().join("tests/tests");
    let mut files = Vec::new();
    collect(&tests, &mut files);
    let is_of = |path: &Path| path.strip_prefix(&tests).unwrap().with_extension("").iter().any(|part| part == name);
    files.into_iter().filter(|path| is_of(path)).map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// Every source file of the library, by its path below `src` without `.rs` and `/mod`.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kvsync/src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.retain(|path| !path.ends_with("tests.rs"));
    assert!(files.len() > 10, "no sources found under {}", root.display());
    files
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap().with_extension("").to_string_lossy().into_owned();
            (name.strip_suffix("/mod").unwrap_or(&name).to_owned(), fs::read_to_string(&path).unwrap())
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn floor_of(file: &str) -> Option<usize> {
    let top = file.split('/').next().unwrap();
    FLOORS.iter().position(|floor| floor.contains(&top))
}

fn within(file: &str, folder: &str) -> bool {
    file == folder || file.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// The lines that are code and not tests.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).take_while(|line| *line != "mod tests {").filter(|line| !line.starts_with("//"))
}

fn mentions(text: &str, path: &str) -> bool {
    code(text).any(|line| {
        line.match_indices(path)
            .any(|(at, _)| !line[at + path.len()..].starts_with(|next: char| next.is_alphanumeric() || next == '_'))
    })
}

/// The first path segment of everything that follows `crate::`.
fn crate_modules(text: &str) -> Vec<String> {
    let mut used = Vec::new();
    for line in code(text) {
        for (at, _) in line.match_indices("crate::") {
            if line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '$') {
                continue;
            }
            let name: String =
                line[at + 7..].chars().take_while(|next| next.is_alphanumeric() || *next == '_').collect();
            if name.starts_with(char::is_lowercase) {
                used.push(name);
            }
        }
    }
    used
}
