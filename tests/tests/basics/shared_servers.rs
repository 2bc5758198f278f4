//! The shared servers answer to the clients that the library uses, and databases of one test are its own.

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};
use kvsync_tests::postgres::fresh_database;
use kvsync_tests::{Tested, env};
use redis::{Client, TlsCertificates};

#[test]
fn redis_answers_over_tcp() -> Tested {
    let pong: String = redis::cmd("PING").query(&mut Client::open(env::redis_url()?)?.get_connection()?)?;
    assert_eq!(pong, "PONG");
    Ok(())
}

#[test]
fn redis_answers_over_a_socket_and_keeps_the_user_to_its_keys() -> Tested {
    let mut connection = Client::open(env::redis_socket_url()?)?.get_connection()?;
    redis::cmd("SET").arg("app:shared_servers").arg(1).exec(&mut connection)?;
    let refused = redis::cmd("SET").arg("shared_servers").arg(1).exec(&mut connection);
    assert_eq!(refused.unwrap_err().code(), Some("NOPERM"));
    Ok(())
}

#[test]
fn redis_answers_over_tls_to_who_trusts_its_authority_only() -> Tested {
    let url = env::redis_tls_url()?;
    let tls = TlsCertificates { client_tls: None, root_cert: Some(std::fs::read(env::redis_tls_ca()?)?) };
    let pong: String = redis::cmd("PING").query(&mut Client::build_with_tls(url.as_str(), tls)?.get_connection()?)?;
    assert_eq!(pong, "PONG");
    assert!(Client::open(url)?.get_connection().is_err());
    Ok(())
}

#[test]
fn the_cluster_serves_every_slot() -> Tested {
    let urls = env::redis_cluster_urls()?;
    assert_eq!(urls.len(), 3);
    let mut cluster = redis::cluster::ClusterClient::new(urls)?.get_connection()?;
    for part in 0..32 {
        let key = format!("shared_servers:{part}");
        redis::cmd("SET").arg(&key).arg(part).exec(&mut cluster)?;
        assert_eq!(redis::cmd("GET").arg(&key).query::<i32>(&mut cluster)?, part);
    }
    Ok(())
}

#[test]
fn a_fresh_database_is_empty_and_goes_when_dropped() -> Tested {
    let (one, two) = (fresh_database()?, fresh_database()?);
    let mut connection = one.connect()?;
    diesel::sql_query("CREATE TABLE t (id int)").execute(&mut connection)?;
    assert!(diesel::sql_query("INSERT INTO t VALUES (1)").execute(&mut two.connect()?).is_err());
    let name = one.url().rsplit_once('/').unwrap().1.to_owned();
    let exists = || -> Tested<bool> {
        let query = sql::<Bool>("EXISTS (SELECT FROM pg_database WHERE datname = ").bind::<Text, _>(&name).sql(")");
        Ok(diesel::select(query).get_result(&mut PgConnection::establish(&env::postgres_url()?)?)?)
    };
    assert!(exists()?);
    // Still connected to, it is dropped all the same.
    drop(one);
    assert!(!exists()?);
    Ok(())
}

#[test]
fn python_reads_message_pack() -> Tested {
    let script = "import msgpack; print(msgpack.unpackb(bytes([0x92, 1, 0xa1, 0x78])))";
    let said = std::process::Command::new(env::python()?).args(["-c", script]).output()?;
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "[1, 'x']");
    Ok(())
}
