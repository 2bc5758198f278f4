//! Every way to say who we are, to servers that want to know.

use data_encoding::BASE64URL_NOPAD;
use kvsync::ErrorKind;
use kvsync::store::Store;
use kvsync::store::data::DataCommands;
use kvsync::store::nats::{Builder, NatsStore};
use kvsync_tests::Tested;
use kvsync_tests::servers::{Nats, NatsOptions};
use kvsync_tests::wait::LONG;
use nkeys::KeyPair;
use serde_json::{Value, json};

use super::checks::{builder, refused};

fn server(settings: impl Into<String>) -> Tested<Nats> {
    Ok(Nats::start(&NatsOptions { settings: settings.into(), ..NatsOptions::default() })?)
}

/// With one login a value comes and goes; with the others the server lets nobody in.
fn lets_in(right: Builder, wrong: impl IntoIterator<Item = Builder>) -> Tested {
    let store = right.connect()?;
    store.set("key", "value")?;
    assert_eq!(store.get("key")?.as_deref(), Some(b"value".as_slice()));
    for wrong in wrong {
        refused(wrong.connect(), ErrorKind::Rejected, "does not take this user, token or key");
    }
    Ok(())
}

pub(super) fn a_token_lets_in() -> Tested {
    let server = server("authorization { token: secret }")?;
    let of_url = NatsStore::builder([format!("nats://secret@127.0.0.1:{}", server.port())]).connect_timeout(LONG);
    lets_in(of_url, [])?;
    lets_in(builder(&server).token("secret"), [builder(&server).token("guess"), builder(&server)])
}

pub(super) fn a_user_in_the_url_lets_in() -> Tested {
    let server = server("authorization { user: app, password: \"p@ss:/\" }")?;
    let of = |login: &str| {
        let url = format!("nats://{login}@127.0.0.1:{}", server.port());
        NatsStore::builder([url]).connect_timeout(LONG).command_timeout(LONG).retry_for(LONG)
    };
    lets_in(of("app:p%40ss:%2f"), [of("app:guess"), of("nobody:p%40ss:%2f"), of("app")])?;
    let store = of("app:p%40ss:%2f").connect()?;
    assert!(!format!("{} {store:?} {:?}", store.name(), of("app:p%40ss:%2f")).contains("p%40ss"));
    Ok(())
}

pub(super) fn an_nkey_lets_in() -> Tested {
    let (ours, theirs) = (KeyPair::new_user(), KeyPair::new_user());
    let server = server(format!("authorization {{ users = [ {{ nkey: {} }} ] }}", ours.public_key()))?;
    let of = |pair: &KeyPair| pair.seed().map(|seed| builder(&server).nkey(seed));
    lets_in(of(&ours)?, [of(&theirs)?, builder(&server)])
}

pub(super) fn a_file_of_credentials_lets_in() -> Tested {
    let (operator, system) = (KeyPair::new_operator(), KeyPair::new_account());
    let (account, stranger) = (KeyPair::new_account(), KeyPair::new_account());
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let own = json!({ "type": "operator", "version": 2, "system_account": system.public_key() });
    let of_account = json!({ "type": "account", "version": 2, "limits": limits });
    let of_system = json!({ "type": "account", "version": 2 });
    let server = server(format!(
        "operator: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {}, {}: {} }}",
        claim(&operator, &operator, &own)?,
        system.public_key(),
        claim(&operator, &system, &of_system)?,
        account.public_key(),
        claim(&operator, &account, &of_account)?,
    ))?;
    let folder = tempfile::tempdir()?;
    let file = |name: &str, text: &str| -> Tested<Builder> {
        let path = folder.path().join(name);
        std::fs::write(&path, text)?;
        Ok(builder(&server).credentials_file(path))
    };
    let of_user = |name: &str, account: &KeyPair| -> Tested<Builder> {
        let user = KeyPair::new_user();
        let rights =
            json!({ "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 });
        file(name, &credentials(&claim(account, &user, &rights)?, &user.seed()?))
    };
    lets_in(of_user("ours", &account)?, [of_user("strange", &stranger)?, builder(&server)])?;
    refused(file("no.creds", "nothing")?.connect(), ErrorKind::Config, "holds no credentials");
    let missing = builder(&server).credentials_file(folder.path().join("missing"));
    refused(missing.connect(), ErrorKind::Config, "cannot be read");
    Ok(())
}

pub(super) fn a_certificate_of_ours_lets_in() -> Tested {
    let server = Nats::start(&NatsOptions { tls: true, verify_clients: true, ..NatsOptions::default() })?;
    let (authority, (certificate, key)) =
        server.ca().zip(server.certificate()).ok_or("a server of TLS without a certificate")?;
    let trusting = builder(&server).ca_file(authority);
    lets_in(trusting.clone().client_certificate(certificate, key), [])?;
    refused(trusting.connect(), ErrorKind::Config, "`client_certificate`");
    // A URL without TLS, where it is required.
    let plain = NatsStore::builder([format!("nats://127.0.0.1:{}", server.port())]).connect_timeout(LONG).require_tls();
    lets_in(plain.ca_file(authority).client_certificate(certificate, key), [])
}

/// What one says of another, signed, as `nsc` writes it.
fn claim(issuer: &KeyPair, subject: &KeyPair, told: &Value) -> Tested<String> {
    let claims = json!({
        "jti": subject.public_key(), "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject.public_key(),
        "name": "test", "nats": told,
    });
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(&json!({ "typ": "JWT", "alg": "ed25519-nkey" })), part(&claims));
    let signature = BASE64URL_NOPAD.encode(&issuer.sign(signed.as_bytes())?);
    Ok(format!("{signed}.{signature}"))
}

fn credentials(user: &str, seed: &str) -> String {
    format!(
        "-----BEGIN NATS USER JWT-----\n{user}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}
