//! `cargo xtask ci`.

use xtask::Result;
use xtask::tools::Tool;

use crate::install;
use crate::run::{cargo, succeed};
use crate::steps::Steps;
use crate::test::{self, EVERYTHING};

/// Feature sets that users choose and that nothing else compiles: each must stand on its own.
const FEATURE_SETS: [&str; 5] = [
    "",
    "sqlite,embedded,near-cache",
    "postgres,redis,dynamodb,nats,metrics",
    "sqlite,rabbitmq",
    "sqlite,postgres,r2d2,redis,redis-tls,json,bson,uuid",
];

/// Every step runs, so that one failure does not hide the next.
pub(crate) fn run() -> Result<()> {
    install::begin_dynoxide();
    let mut steps = Steps::default();
    steps.take("format", || succeed(&mut cargo(&["fmt", "--all", "--check"])))?;
    steps.take("lints", || {
        succeed(cargo(&["clippy", "--all-targets"]).args(EVERYTHING).args(["--", "-D", "warnings"]))
    })?;
    steps.take("documentation", || {
        succeed(cargo(&["doc", "--no-deps"]).args(EVERYTHING).env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    for features in FEATURE_SETS {
        let name = if features.is_empty() { "none" } else { features };
        steps.take(&format!("features: {name}"), || {
            let mut clippy = cargo(&["clippy", "--package", "kvsync", "--no-default-features", "--features", features]);
            succeed(clippy.args(["--", "-D", "warnings"]))
        })?;
    }
    // Compiled and no more: nothing can link it without that database's library.
    steps.take("features: foundationdb", || {
        install::tools(&[Tool::LibClang])?;
        let clippy = ["clippy", "--package", "kvsync", "--no-default-features", "--features", "foundationdb"];
        succeed(cargo(&clippy).args(["--", "-D", "warnings"]))
    })?;
    steps.take("fuzz targets", || succeed(&mut cargo(&["check", "--quiet", "--manifest-path", "fuzz/Cargo.toml"])))?;
    steps.take("quickstart, as a newcomer runs it", || succeed(&mut cargo(&["run", "--example", "quickstart"])))?;
    // A target folder of its own, because other flags compile everything again.
    let shuttle = [("RUSTFLAGS", "--cfg kvsync_shuttle"), ("CARGO_TARGET_DIR", "target/shuttle")];
    let only = ["--package", "kvsync", "--no-default-features"];
    steps.take("concurrency, under shuttle", || {
        succeed(cargo(&["test", "--lib"]).args(only).arg("models::").envs(shuttle))
    })?;
    steps.take("lints, under shuttle", || {
        succeed(cargo(&["clippy", "--tests"]).args(only).args(["--", "-D", "warnings"]).envs(shuttle))
    })?;
    steps.take("test", || test::run(&[]))?;
    println!("\n== Steps of ci");
    steps.finish()
}
