//! The Redis servers that the library starts do what their options say.

use std::process::Command;
use std::time::{Duration, Instant};

use xtask::servers::{AclUser, Listen, Redis, RedisOptions};

type Tested = Result<(), Box<dyn std::error::Error>>;

#[test]
fn an_append_only_file_outlives_a_kill() -> Tested {
    let redis = Redis::start(RedisOptions { appendonly: true, ..RedisOptions::default() })?;
    let url = redis.url();
    redis.cli(&["SET", "a", "1"])?;
    redis.kill()?;
    assert!(redis.cli(&["GET", "a"]).is_err());
    redis.restart()?;
    assert_eq!(redis.cli(&["GET", "a"])?, "1");
    assert_eq!(redis.url(), url);
    Ok(())
}

#[test]
fn without_one_a_restart_forgets() -> Tested {
    let redis = Redis::start(RedisOptions::default())?;
    redis.cli(&["SET", "a", "1"])?;
    redis.restart()?;
    assert_eq!(redis.cli(&["GET", "a"])?, "");
    Ok(())
}

#[test]
fn a_socket_with_a_password_and_a_user() -> Tested {
    let user = AclUser { name: "app".into(), password: "secret".into(), keys: "app:*".into() };
    let (password, user) = (Some("root".into()), Some(user));
    let redis = Redis::start(RedisOptions { listen: Listen::Socket, password, user, ..RedisOptions::default() })?;
    let socket = redis.socket().ok_or("no socket")?;
    assert_eq!(redis.port(), None);
    assert_eq!(redis.url(), format!("redis+unix://{}?db=0&user=app&pass=secret", socket.display()));
    let app = |command: &[&str]| {
        let mut cli = Command::new("redis-cli");
        cli.arg("-s").arg(&socket).args(["--user", "app", "--no-auth-warning", "-a", "secret"]).args(command).output()
    };
    assert_eq!(app(&["SET", "app:1", "x"])?.stdout, b"OK\n");
    assert!(app(&["SET", "other", "x"])?.stdout.starts_with(b"NOPERM"));
    assert_eq!(redis.cli(&["GET", "app:1"])?, "x");
    Ok(())
}

#[test]
fn tls_with_a_certificate_that_verifies() -> Tested {
    let redis = Redis::start(RedisOptions { listen: Listen::Tls, ..RedisOptions::default() })?;
    assert!(redis.url().starts_with("rediss://127.0.0.1:"));
    assert!(redis.ca().is_some_and(std::path::Path::exists));
    assert_eq!(redis.cli(&["PING"])?, "PONG");
    Ok(())
}

#[test]
fn memory_is_limited() -> Tested {
    let maxmemory = Some((2_000_000, "noeviction".into()));
    let redis = Redis::start(RedisOptions { maxmemory, ..RedisOptions::default() })?;
    assert_eq!(redis.cli(&["CONFIG", "GET", "maxmemory"])?, "maxmemory\n2000000");
    assert_eq!(redis.cli(&["CONFIG", "GET", "maxmemory-policy"])?, "maxmemory-policy\nnoeviction");
    Ok(())
}

#[test]
fn a_paused_server_is_silent_until_resumed_and_can_be_dropped_paused() -> Tested {
    let redis = Redis::start(RedisOptions::default())?;
    redis.pause()?;
    let start = Instant::now();
    std::thread::scope(|scope| -> Tested {
        let answer = scope.spawn(|| redis.cli(&["PING"]));
        std::thread::sleep(Duration::from_millis(100));
        redis.resume()?;
        assert_eq!(answer.join().map_err(|_| "panicked")??, "PONG");
        Ok(())
    })?;
    assert!(start.elapsed() >= Duration::from_millis(100));
    redis.pause()?;
    Ok(())
}

#[test]
fn a_server_that_does_not_start_quotes_its_log() {
    let settings = vec![("maxmemory-policy".to_owned(), "nonsense".to_owned())];
    let error = Redis::start(RedisOptions { settings, ..RedisOptions::default() }).err();
    let message = error.map(|error| error.to_string()).unwrap_or_default();
    assert!(message.contains("did not start") && message.contains("maxmemory-policy"), "{message}");
}

#[test]
fn a_dropped_server_leaves_no_process_and_no_folder() -> Tested {
    let redis = Redis::start(RedisOptions { listen: Listen::Socket, ..RedisOptions::default() })?;
    let folder = redis.socket().and_then(|socket| socket.parent().map(std::path::Path::to_owned)).ok_or("no folder")?;
    let pid = redis.pid().ok_or("no pid")?.to_string();
    assert!(folder.exists() && runs(&pid)?);
    drop(redis);
    assert!(!folder.exists() && !runs(&pid)?);
    Ok(())
}

fn runs(pid: &str) -> std::io::Result<bool> {
    Ok(Command::new("sh").args(["-c", "kill -0 \"$0\" 2>/dev/null", pid]).status()?.success())
}
