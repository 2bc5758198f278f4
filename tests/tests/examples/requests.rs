//! What the service answers to a client.

use kvsync_tests::servers::{Redis, RedisOptions};
use kvsync_tests::wait::until;
use kvsync_tests::{Tested, env};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::client::Answer;
use super::service::Service;
use super::users_store::told;

type Case = fn() -> Tested;

pub fn trials() -> Vec<Trial> {
    let of_persons = |store: &'static str| {
        Trial::test(format!("person_api::{store}::persons"), move || told(url(store).and_then(|url| persons(&url))))
    };
    let of_users =
        |store: &'static str| Trial::test(format!("person_api::{store}::users"), move || told(users_on(store)));
    let alone: [(&str, Case); 4] = [
        ("what_it_stored_is_there_when_it_starts_again", restart),
        ("a_store_that_is_down_is_told", outage),
        ("a_store_that_nobody_knows_is_refused", unknown),
        ("an_address_that_is_taken_is_named", taken),
    ];
    let alone = alone.map(|(name, test)| Trial::test(format!("person_api::{name}"), move || told(test())));
    let persons = ["memory", "embedded", "redis", "cluster", "dynamodb", "nats"].map(of_persons);
    let users = ["memory", "embedded", "redis", "dynamodb", "nats"].map(of_users);
    persons.into_iter().chain(users).chain(alone).collect()
}

fn url(store: &str) -> Tested<String> {
    Ok(match store {
        "redis" => env::redis_url()?,
        "cluster" => {
            let urls = env::redis_cluster_urls()?;
            let node = |url: &String| url.trim_start_matches("redis://").trim_end_matches('/').to_owned();
            format!("redis+cluster://{}", urls.iter().map(node).collect::<Vec<_>>().join(","))
        }
        "dynamodb" => format!("dynamodb:{}?region=eu-west-1&endpoint={}", fresh("table"), env::dynamodb_url()?),
        "nats" => format!("{}/{}", env::nats_url()?.trim_end_matches('/'), fresh("bucket")),
        store => format!("{store}:"),
    })
}

/// An id that no other run has.
fn fresh(name: &str) -> String {
    format!("{name}-{}-{}", std::process::id(), rand::random::<u32>())
}

fn persons(store: &str) -> Tested {
    let service = Service::start(store, None)?;
    let id = fresh("ann");
    let path = format!("/persons/{id}");
    let ann = json!({"id": id, "name": "Ann", "age": 41});

    assert_eq!(service.ask("GET", &path, "")?.status, 404);
    // Longer than some stores take.
    assert_eq!(service.ask("GET", &format!("/persons/{}", "x".repeat(5000)), "")?.status, 404);
    let created = service.ask("POST", "/persons", &ann.to_string())?;
    assert_eq!((created.status, created.header("location"), &created.body), (201, Some(&*path), &ann));
    let again = service.ask("POST", "/persons", &ann.to_string())?;
    assert_eq!((again.status, &again.body), (409, &json!({"error": "the id is taken"})));
    assert_eq!(service.ask("GET", &path, "")?.body, ann);
    let older = service.ask("PUT", &path, r#"{"name": "Ann", "age": 42}"#)?;
    assert_eq!((older.status, &older.body["age"]), (200, &json!(42)));
    assert_eq!(service.ask("GET", &path, "")?.body, older.body);
    assert_eq!(service.ask("DELETE", &path, "")?.status, 204);
    for (method, body) in [("GET", ""), ("PUT", r#"{"name": "Ann", "age": 42}"#), ("DELETE", "")] {
        let gone = service.ask(method, &path, body)?;
        assert_eq!((gone.status, gone.body["error"].is_string()), (404, true), "{method}");
    }

    let long = format!(r#"{{"id": "{id}", "age": 1, "name": "{}"}}"#, "x".repeat(17 << 10));
    for (method, path, body, status) in [
        ("POST", "/persons", "no json", 400),
        ("POST", "/persons", "{", 400),
        ("POST", "/persons", r#"{"id": "x", "age": 1}"#, 422),
        ("POST", "/persons", r#"{"id": "x", "name": "Ann", "age": 256}"#, 422),
        ("POST", "/persons", r#"{"id": "x", "name": " ", "age": 1}"#, 422),
        ("POST", "/persons", r#"{"id": "x/y", "name": "Ann", "age": 1}"#, 422),
        ("POST", "/persons", &long, 413),
        ("DELETE", "/persons", "", 405),
        ("POST", "/persons/x", "{}", 405),
        ("GET", "/nothing", "", 404),
    ] {
        let answer = service.ask(method, path, body)?;
        assert_eq!(answer.status, status, "{method} {path} {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{method} {path} {answer:?}");
        assert!(answer.body["error"].as_str().is_some_and(|text| !text.is_empty()), "{method} {path} {answer:?}");
    }
    assert!(service.end()?.contains("written"));
    Ok(())
}

/// Rows of a new database, whose ids others have, too: they need a server of their own.
fn users_on(store: &str) -> Tested {
    if store == "redis" {
        let redis = Redis::start(RedisOptions::default())?;
        return users(&redis.url());
    }
    users(&url(store)?)
}

fn users(store: &str) -> Tested {
    let service = Service::start(store, None)?;
    let name = fresh("ann");
    let ann = json!({"username": name, "email": format!("{name}@example.com")});
    let created = service.ask("POST", "/users?wait=true", &ann.to_string())?;
    assert_eq!((created.status, created.header("kvsync-applied")), (201, Some("true")), "{created:?}");
    let path = created.header("location").ok_or("no location")?.to_owned();
    let user = created.body;
    assert_eq!((&user["username"], &user["email"]), (&ann["username"], &ann["email"]));
    assert_eq!(service.ask("GET", &path, "")?.body, user);
    assert_eq!(service.ask("GET", &format!("/users?username={name}"), "")?.body, user);

    // Longer than some stores take.
    assert_eq!(service.ask("GET", &format!("/users?username={}", "x".repeat(3000)), "")?.status, 404);

    let again = json!({"username": ann["username"], "email": "other@example.com"});
    let again = service.ask("POST", "/users", &again.to_string())?;
    assert_eq!((again.status, &again.body), (409, &json!({"error": "the username is taken"})));
    let other = json!({"username": fresh("other"), "email": ann["email"]});
    assert_eq!(service.ask("POST", "/users", &other.to_string())?.body, json!({"error": "the email is taken"}));

    let renamed = fresh("anne");
    let anne = json!({"username": renamed, "email": ann["email"]});
    let updated = service.ask("PUT", &format!("{path}?wait=true"), &anne.to_string())?;
    assert_eq!((updated.status, updated.header("kvsync-applied")), (200, Some("true")), "{updated:?}");
    assert_eq!(service.ask("GET", &path, "")?.body, updated.body);
    assert_eq!(service.ask("GET", &format!("/users?username={name}"), "")?.status, 404, "the old name is free");
    assert_eq!(service.ask("GET", &format!("/users?username={renamed}"), "")?.body, updated.body);

    // Without waiting, the answer comes with the commit, and the store follows.
    let back = service.ask("PUT", &path, &ann.to_string())?;
    assert_eq!((back.status, back.header("kvsync-applied")), (200, None));
    until("the store has it", || service.ask("GET", &path, "").is_ok_and(|seen| seen.body == back.body));

    // Within the second that it gives the store.
    let is_well = |health: Answer| health.status == 200 && health.body["pipeline"]["closed"] == Value::Bool(false);
    until("it is well", || service.ask("GET", "/health", "").is_ok_and(is_well));
    assert_eq!(service.ask("GET", "/live", "")?.status, 204);

    assert_eq!(service.ask("DELETE", &format!("{path}?wait=true"), "")?.status, 204);
    for (method, body) in [("GET", ""), ("DELETE", ""), ("PUT", &*ann.to_string())] {
        assert_eq!(service.ask(method, &path, body)?.status, 404, "{method}");
    }
    for (method, path, body, status) in [
        ("GET", "/users/no-number", "", 400),
        ("GET", "/users", "", 400),
        ("POST", "/users", "[]", 422),
        ("POST", "/users", r#"{"username": "ann", "email": "nowhere"}"#, 422),
        ("DELETE", "/users", "", 405),
    ] {
        let answer = service.ask(method, path, body)?;
        assert_eq!((answer.status, answer.body["error"].is_string()), (status, true), "{method} {path} {answer:?}");
    }
    service.end()?;
    Ok(())
}

fn restart() -> Tested {
    let folder = tempfile::tempdir()?;
    let service = Service::start("embedded:", Some(folder.path()))?;
    let person = json!({"id": "ann", "name": "Ann", "age": 41});
    service.ask("POST", "/persons", &person.to_string())?;
    let user = service.ask("POST", "/users", r#"{"username": "ann", "email": "ann@example.com"}"#)?;
    assert_eq!(user.status, 201);
    service.end()?;
    let service = Service::start("embedded:", Some(folder.path()))?;
    assert_eq!(service.ask("GET", "/persons/ann", "")?.body, person);
    assert_eq!(service.ask("GET", user.header("location").ok_or("no location")?, "")?.body, user.body);
    service.end()?;
    Ok(())
}

fn outage() -> Tested {
    let redis = Redis::start(RedisOptions::default())?;
    let service = Service::start(&redis.url(), None)?;
    let person = r#"{"id": "ann", "name": "Ann", "age": 41}"#;
    assert_eq!(service.ask("POST", "/persons", person)?.status, 201);
    redis.kill()?;

    let refused = service.ask("GET", "/persons/ann", "")?;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
    assert!(!refused.body.to_string().contains("redis"), "it is not told where the store is: {refused:?}");
    assert_eq!(service.ask("POST", "/persons", person)?.status, 503);
    // A row is committed all the same, and reaches the store when that is back.
    let user = service.ask("POST", "/users", r#"{"username": "ann", "email": "ann@example.com"}"#)?;
    assert_eq!((user.status, user.header("kvsync-applied")), (201, None));
    let health = service.ask("GET", "/health", "")?;
    assert_eq!((health.status, &health.body["status"]), (503, &json!("down")), "{health:?}");
    assert_eq!(service.ask("GET", "/live", "")?.status, 204);

    redis.restart()?;
    let path = user.header("location").ok_or("no location")?;
    until("it answers again", || service.ask("GET", path, "").is_ok_and(|seen| seen.body == user.body));
    until("it is well", || service.ask("GET", "/health", "").is_ok_and(|health| health.status == 200));
    service.end()?;
    Ok(())
}

fn taken() -> Tested {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let said = Service::refused(&address)?;
    if said.contains("KVSYNC_LISTEN") && said.contains(&address) { Ok(()) } else { Err(said.into()) }
}

fn unknown() -> Tested {
    for nobodys in ["floppy:a", "nonsense"] {
        if Service::start(nobodys, None).is_ok() {
            return Err(format!("it started on `{nobodys}`").into());
        }
    }
    Ok(())
}
