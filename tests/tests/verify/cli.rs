//! The command line, run as a process: what it says as JSON and to people, and its exit codes.

use std::process::{Command, Output};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use kvsync_tests::{Tested, env};
use serde_json::Value;
use tempfile::TempDir;

pub const OUTBOX: &str = include_str!("../../../kvsync/migrations/sqlite/20250101000000_kvsync_outbox/up.sql");

pub struct Admin {
    dir: TempDir,
    pub prefix: String,
    pub outbox: Option<&'static str>,
    pub single_tenant: bool,
}

impl Admin {
    pub fn new() -> Tested<Self> {
        let prefix = format!("verify:{:016x}:", rand::random::<u64>());
        let admin = Self { dir: tempfile::tempdir()?, prefix, outbox: None, single_tenant: false };
        admin.sql(
            "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT UNIQUE, name TEXT NOT NULL);
             INSERT INTO users VALUES (1, 'ann@x', 'Ann'), (2, 'bob@x', 'Bob'), (3, NULL, 'Cid')",
        )?;
        Ok(admin)
    }

    pub fn path(&self) -> String {
        self.dir.path().join("app.db").to_string_lossy().into_owned()
    }

    pub fn sql(&self, sql: &str) -> Tested {
        Ok(SqliteConnection::establish(&self.path())?.batch_execute(sql)?)
    }

    pub fn run(&self, redis: &str, arguments: &[&str]) -> Tested<Output> {
        Ok(self.command(redis, arguments).output()?)
    }

    pub fn command(&self, redis: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(std::env!("CARGO_BIN_EXE_admin"));
        command.env("ADMIN_DATABASE", self.path()).env("ADMIN_REDIS", redis).env("ADMIN_PREFIX", &self.prefix);
        command.env_remove("ADMIN_OUTBOX").env_remove("ADMIN_TENANT").args(arguments);
        if self.single_tenant {
            command.env("ADMIN_TENANT", "1");
        }
        if let Some(outbox) = self.outbox {
            command.env("ADMIN_OUTBOX", outbox);
        }
        command
    }

    /// The exit code and the document.
    pub fn json(&self, arguments: &[&str]) -> Tested<(i32, Value)> {
        let arguments = [arguments, &["--json"]].concat();
        let output = self.run(&env::redis_url()?, &arguments)?;
        let document = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("{arguments:?}: {error} in {:?}", String::from_utf8_lossy(&output.stdout)))?;
        Ok((output.status.code().unwrap(), document))
    }
}

#[test]
fn a_store_is_filled_compared_and_mended() -> Tested {
    let admin = Admin::new()?;
    let (code, empty) = admin.json(&["verify", "--in-flight", "0"])?;
    assert_eq!((code, &empty["clean"], &empty["counts"]["missing"]), (1, &false.into(), &5.into()), "{empty}");
    let (code, filled) = admin.json(&["backfill"])?;
    assert_eq!((code, &filled["complete"], &filled["models"][0]["written"]), (0, &true.into(), &3.into()), "{filled}");
    assert_eq!(admin.json(&["verify", "User", "--in-flight", "0"])?.0, 0);

    admin.sql("UPDATE users SET name = 'Anna' WHERE id = 1; DELETE FROM users WHERE id = 2")?;
    let (code, found) = admin.json(&["verify", "--in-flight", "0"])?;
    assert_eq!((code, &found["counts"]["stale"], &found["counts"]["orphan"]), (1, &2.into(), &2.into()), "{found}");
    let stale = &found["differences"][0];
    assert_eq!(
        (&stale["kind"], &stale["model"], &stale["key"], &stale["key_name"], &stale["primary_key"]),
        (&"stale".into(), &"User".into(), &"user:id:1".into(), &"id".into(), &"1".into()),
        "{stale}"
    );
    for field in ["store", "database", "table", "stored", "read_at", "detail"] {
        assert!(stale[field].is_string(), "{field} in {stale}");
    }
    let (code, repaired) = admin.json(&["repair", "--in-flight", "0"])?;
    assert_eq!((code, &repaired["left"], &repaired["mended"]), (0, &0.into(), &4.into()), "{repaired}");
    assert_eq!(admin.json(&["verify", "--in-flight", "0"])?.0, 0);

    let people = admin.run(&env::redis_url()?, &["verify", "--in-flight", "0"])?;
    let people = String::from_utf8(people.stdout)?;
    assert!(people.contains("2 rows") && people.contains("no difference"), "{people}");
    Ok(())
}

#[test]
fn health_audit_and_epoch_are_told() -> Tested {
    let admin = Admin::new()?;
    let (_, health) = admin.json(&["health", "--deadline", "300"])?;
    assert!(["up", "degraded"].contains(&health["status"].as_str().unwrap()), "{health}");
    assert_eq!(health["stores"].as_array().unwrap().len(), 1, "{health}");
    let (code, audit) = admin.json(&["audit"])?;
    assert!(audit["findings"].is_array() && code < 2, "{audit}");
    admin.sql("ALTER TABLE users RENAME TO away")?;
    let absent = admin.json(&["audit"])?.1;
    assert!(absent.to_string().contains("it is not there"), "{absent}");
    admin.sql("ALTER TABLE away RENAME TO users")?;
    admin.sql("CREATE TRIGGER hidden AFTER INSERT ON users BEGIN UPDATE users SET name = 'x'; END")?;
    let (code, audit) = admin.json(&["audit", "--database", "main"])?;
    let finding = &audit["findings"][0];
    assert_eq!((code, &finding["severity"], &finding["table"]), (1, &"warning".into(), &"users".into()), "{audit}");

    let (code, refused) = admin.json(&["epoch", "raise"])?;
    assert!(code == 2 && refused["error"].as_str().unwrap().contains("--yes"), "{refused}");
    assert_eq!(admin.json(&["epoch", "raise", "--yes"])?.1["epoch"], 1);
    Ok(())
}

#[test]
fn outboxes_and_triggers_are_told() -> Tested {
    let mut admin = Admin::new()?;
    let (code, none) = admin.json(&["outbox", "depth"])?;
    assert!(code == 2 && none["error"].as_str().unwrap().contains("outbox"), "{none}");
    admin.sql(OUTBOX)?;
    admin.outbox = Some("triggers");
    let (code, triggers) = admin.json(&["triggers"])?;
    assert_eq!(code, 0);
    admin.sql(triggers["sql"].as_str().unwrap())?;
    let (code, audit) = admin.json(&["audit"])?;
    let findings = audit["findings"].as_array().unwrap();
    assert!(code == 1 && findings.iter().any(|one| one["message"].as_str().unwrap().contains("REPLACE")), "{audit}");
    assert!(findings.iter().all(|one| one["severity"] == "note" || one["advice"] != ""), "{audit}");
    let (code, depth) = admin.json(&["outbox", "depth"])?;
    assert_eq!(
        (code, &depth["outboxes"][0]["database"], &depth["outboxes"][0]["dead"]),
        (0, &"main".into(), &0.into())
    );
    assert_eq!(admin.json(&["outbox", "dead"])?.1["dead_letters"], Value::Array(Vec::new()));
    assert_eq!(admin.json(&["outbox", "retry", "--all"])?.1["count"], 0);
    assert_eq!(admin.json(&["outbox", "replay", "--since", "60"])?.1["count"], 0);
    admin.sql(admin.json(&["triggers", "--down"])?.1["sql"].as_str().unwrap())?;
    Ok(())
}

#[test]
fn what_cannot_be_done_says_why_and_no_password() -> Tested {
    let admin = Admin::new()?;
    let down = "redis://user:hush-hush@127.0.0.1:1/";
    let output = admin.run(down, &["verify", "--json"])?;
    let (told, said) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    assert_eq!(output.status.code(), Some(2), "{told}{said}");
    assert!(told.contains("\"error\"") && !told.contains("hush") && !said.contains("hush"), "{told}{said}");
    let (code, unknown) = admin.json(&["verify", "Nobody"])?;
    assert!(code == 2 && unknown["error"].as_str().unwrap().contains("`Nobody`"), "{unknown}");
    assert_eq!(unknown["retryable"], false);
    Ok(())
}
