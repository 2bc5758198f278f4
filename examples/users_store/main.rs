//! Persistence code of one's own on the Redis-like commands: users whose names and addresses are unique.
//!
//! ```text
//! cargo run --example users_store
//! KVSYNC_STORE=redis://127.0.0.1/ cargo run --example users_store --features redis
//! ```
#![allow(unreachable_pub, reason = "the modules are written as those of a library")]

#[allow(dead_code, reason = "rows are not synced here")]
#[path = "../store_url.rs"]
mod store_url;
mod users;

use users::{Added, Renamed, Users};

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let opened = store_url::open(&store_url::from_env())?;
    println!("store          {}", opened.data.name());
    // A tag of this run's, because a server may hold the users of an earlier one.
    let users = Users::new(opened.data, &format!("users-{}", std::process::id()))?;

    let Added::Done(ann) = users.add("ann", "ann@example.com")? else { return Err("ann is taken".into()) };
    println!("added          {ann:?}");
    let again = users.add("ann", "other@example.com")?;
    assert_eq!(again, Added::Taken { username: true, email: false });
    println!("refused        the name is taken, the address is not");
    let again = users.add("ann", "ann@example.com")?;
    assert_eq!(again, Added::Taken { username: true, email: true });
    println!("refused        both are taken");

    for name in ["bob", "eve", "joe"] {
        users.add(name, &format!("{name}@example.com"))?;
    }
    let mut after = None;
    loop {
        let page = users.page(after.as_deref(), 3)?;
        println!("page           {:?}", page.users.iter().map(|user| &*user.username).collect::<Vec<_>>());
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let many = users.get_many(&[ann.id, 404])?;
    assert_eq!(many, [Some(ann.clone()), None]);
    println!("got many       one of two is there");

    assert_eq!(users.rename(ann.id, "bob")?, Renamed::Taken);
    let Renamed::Done(anne) = users.rename(ann.id, "anne")? else { return Err("anne is taken".into()) };
    assert_eq!((users.by_username("ann")?, users.by_username("anne")?), (None, Some(anne.clone())));
    println!("renamed        {anne:?}, and ann is free");

    for user in users.page(None, 100)?.users {
        assert!(users.delete(user.id)?);
    }
    assert!(matches!(users.add("anne", "ann@example.com")?, Added::Done(again) if users.delete(again.id)?));
    println!("deleted        names and addresses are free");
    Ok(())
}
