//! The exit code of each command, as its documentation says, and what stands beside it.

use std::process::{Command, Stdio};
use std::time::Instant;

use kvsync_tests::wait::{LONG, until};
use kvsync_tests::{Tested, env};
use redis::Commands;
use serde_json::Value;

use crate::cli::{Admin, OUTBOX};

/// A row of the outbox that no process can understand: it is a dead letter at once.
const POISON: &str = "INSERT INTO kvsync_outbox (captured_at, timeline, sequence, table_name, action, primary_key) \
                      VALUES (1, 0, 1, 'users', 'update', 'no literal')";

fn with_outbox() -> Tested<Admin> {
    let mut admin = Admin::new()?;
    admin.outbox = Some("plain");
    admin.sql(OUTBOX)?;
    Ok(admin)
}

/// Asks until there is one, and returns its id: it is the relay of the asking process that gives the row up.
fn dead_letter(admin: &Admin) -> Tested<i64> {
    let deadline = Instant::now() + LONG;
    while Instant::now() < deadline {
        let (code, dead) = admin.json(&["outbox", "dead"])?;
        if let Some(id) = dead["dead_letters"][0]["id"].as_i64() {
            let error = dead["dead_letters"][0]["error"].as_str().unwrap();
            assert_eq!(error.matches("corrupt entry").count(), 1, "the kind is told twice: {error}");
            assert_eq!(code, 1, "{dead}");
            return Ok(id);
        }
        assert_eq!(code, 0, "{dead}");
    }
    Err("the poisoned row is no dead letter".into())
}

#[test]
fn dead_letters() -> Tested {
    let admin = with_outbox()?;
    let (_, fine) = admin.json(&["health", "--deadline", "300"])?;
    let outbox = &fine["outboxes"][0];
    assert_eq!((&outbox["database"], &outbox["dead"], &outbox["error"]), (&"main".into(), &0.into(), &Value::Null));
    assert_eq!((&outbox["pending"], &outbox["oldest_seconds"]), (&0.into(), &Value::Null), "{fine}");

    admin.sql(POISON)?;
    let id = dead_letter(&admin)?.to_string();
    let (code, health) = admin.json(&["health", "--deadline", "300"])?;
    assert_eq!((code, &health["status"]), (1, &"degraded".into()), "{health}");
    assert_eq!(health["outboxes"][0]["dead"], 1, "{health}");
    let told = health["details"].as_array().unwrap().iter().filter(|detail| detail.to_string().contains("dead letter"));
    assert_eq!(told.count(), 1, "{health}");
    assert_eq!(admin.json(&["outbox", "depth"])?.0, 1);

    for verb in ["retry", "drop"] {
        let (code, none) = admin.json(&["outbox", verb])?;
        assert!(code == 2 && none["error"].as_str().unwrap().contains("`--all`"), "{none}");
        let (code, wrong) = admin.json(&["outbox", verb, "9999"])?;
        assert_eq!((code, &wrong["count"], &wrong["missing"][0]), (1, &0.into(), &9999.into()), "{wrong}");
    }
    let (code, retried) = admin.json(&["outbox", "retry", &id])?;
    assert_eq!((code, &retried["count"], &retried["missing"]), (0, &1.into(), &Value::Array(Vec::new())), "{retried}");
    let id = dead_letter(&admin)?.to_string();
    let (code, both) = admin.json(&["outbox", "drop", &id, "9999"])?;
    assert_eq!((code, &both["count"], &both["missing"][0]), (1, &1.into(), &9999.into()), "{both}");
    assert!(both["advice"].as_str().unwrap().contains("`repair`"), "{both}");
    assert_eq!(admin.json(&["outbox", "dead"])?.0, 0);
    let (code, none) = admin.json(&["outbox", "drop", "--all"])?;
    assert_eq!((code, &none["count"], &none["advice"]), (0, &0.into(), &Value::Null), "{none}");
    Ok(())
}

#[test]
fn an_outbox_that_does_not_answer() -> Tested {
    let mut admin = Admin::new()?;
    admin.outbox = Some("plain");
    let (code, health) = admin.json(&["health", "--deadline", "300"])?;
    assert_eq!((code, &health["status"]), (1, &"degraded".into()), "{health}");
    let told = health["details"].as_array().unwrap().iter().any(|detail| detail.to_string().contains("migration"));
    assert!(told && health["outboxes"][0]["error"].is_string(), "{health}");
    let (code, depth) = admin.json(&["outbox", "depth"])?;
    assert!(code == 2 && depth["error"].is_string(), "{depth}");
    Ok(())
}

#[test]
fn servers_that_are_down() -> Tested {
    let admin = Admin::new()?;
    for command in ["health", "verify"] {
        let output = admin.run("redis://127.0.0.1:1/", &[command, "--json"])?;
        let told: Value = serde_json::from_slice(&output.stdout)?;
        assert_eq!((output.status.code(), &told["retryable"]), (Some(2), &true.into()), "{command}: {told}");
        let error = told["error"].as_str().unwrap();
        assert_eq!(error.matches("refused").count(), 1, "a cause is told twice: {error}");
    }
    Ok(())
}

#[test]
fn arguments_that_make_no_sense() -> Tested {
    let admin = Admin::new()?;
    let wrong: [&[&str]; 11] = [
        &[],
        &["verify", "--rubbish"],
        &["verify", "--in-flight", "soon"],
        &["verify", "--in-flight", "nan"],
        &["verify", "--rate", "0"],
        &["health", "--deadline=-1"],
        &["health", "--deadline", "1e19"],
        &["outbox", "dead", "--most", "0"],
        &["backfill", "--resume", "1", "--page", "many"],
        &["outbox"],
        &["epoch", "raise"],
    ];
    for arguments in wrong {
        let (code, told) = admin.json(arguments)?;
        assert!(code == 2 && told["error"].is_string(), "{arguments:?}: {told}");
        let people = admin.run(&env::redis_url()?, arguments)?;
        assert_eq!((people.status.code(), people.stdout.len()), (Some(2), 0), "{arguments:?}");
        assert!(!people.stderr.is_empty(), "{arguments:?}");
    }
    for negative in [&["outbox", "replay", "--since", "-5"][..], &["verify", "--in-flight", "-5"]] {
        let told = admin.json(negative)?.1;
        assert!(told["error"].as_str().unwrap().contains("a number of seconds from 0"), "{told}");
    }
    let help = admin.run(&env::redis_url()?, &["outbox", "retry", "--help"])?;
    assert!(help.status.success() && String::from_utf8(help.stdout)?.contains("outbox dead"));
    Ok(())
}

#[test]
fn a_scope_whose_rows_nobody_knows_is_refused() -> Tested {
    let mut admin = Admin::new()?;
    for command in ["backfill", "verify", "repair"] {
        let (code, told) = admin.json(&["--scope", "typo", command])?;
        let error = told["error"].as_str().unwrap();
        assert!(code == 2 && error.contains("single_tenant") && error.contains("@typo:"), "{command}: {told}");
    }
    let mut redis = redis::Client::open(env::redis_url()?)?.get_connection()?;
    assert!(!redis.exists::<_, bool>(format!("{}@typo:user:id:1", admin.prefix))?);
    admin.single_tenant = true;
    assert_eq!(admin.json(&["--scope", "t1", "backfill"])?.1["models"][0]["written"], 3);
    assert_eq!(admin.json(&["--scope", "t1", "verify", "--in-flight", "0"])?.0, 0);
    Ok(())
}

#[test]
fn a_backfill_that_fails_says_where_to_go_on() -> Tested {
    let admin = Admin::new()?;
    let position = "{\"no\":1}";
    let (code, told) = admin.json(&["backfill", "User", "--resume", position])?;
    assert!(code == 2 && told["error"].is_string() && told["complete"] == false, "{told}");
    let people = admin.run(&env::redis_url()?, &["backfill", "User", "--resume", position])?;
    assert!(!String::from_utf8(people.stdout)?.contains("go on"), "a wrong position is told once more");
    admin.sql("DROP TABLE users")?;
    let (code, told) = admin.json(&["backfill", "--deadline", "1"])?;
    assert_eq!((code, &told["complete"], &told["models"][0]["model"]), (2, &false.into(), &"User".into()), "{told}");
    let people = admin.run(&env::redis_url()?, &["backfill", "--deadline", "1"])?;
    assert!(String::from_utf8(people.stdout)?.contains("go on with `backfill User`"));
    Ok(())
}

#[test]
fn an_interrupted_backfill_says_where_to_go_on() -> Tested {
    let admin = Admin::new()?;
    admin.sql(
        "WITH RECURSIVE n (i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
         INSERT INTO users SELECT i, NULL, 'n' FROM n",
    )?;
    let mut slow = admin.command(&env::redis_url()?, &["backfill", "--rate", "1", "--json"]);
    let slow = slow.stdout(Stdio::piped()).spawn()?;
    let mut redis = redis::Client::open(env::redis_url()?)?.get_connection()?;
    let first = format!("{}user:id:1", admin.prefix);
    until("the first row is written", || redis.exists(&first).unwrap());
    assert!(Command::new("kill").args(["-INT", &slow.id().to_string()]).status()?.success());
    let ended = slow.wait_with_output()?;
    let told: Value = serde_json::from_slice(&ended.stdout)?;
    assert_eq!((ended.status.code(), &told["complete"]), (Some(1), &false.into()), "{told}");
    let next = told["models"][0]["next"].as_str().unwrap();
    let rows = told["models"][0]["rows"].as_u64().unwrap();
    let (code, rest) = admin.json(&["backfill", "User", "--resume", next])?;
    assert_eq!((code, rest["models"][0]["rows"].as_u64()), (0, Some(294 - rows)), "{told} {rest}");
    assert_eq!(admin.json(&["verify", "--in-flight", "0"])?.0, 0);
    Ok(())
}
