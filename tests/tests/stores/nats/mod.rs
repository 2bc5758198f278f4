//! The NATS store on a server with JetStream. Its stores share a bucket, and each has a prefix of its own and two clients.
//! What the suite cannot show has trials here: servers that fail or refuse, buckets of others, clients that race.

mod checks;
mod clients;
mod cluster;
mod logins;
mod outages;
mod raw;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kvsync::store::conformance::{Harness, Stores};
use kvsync::store::nats::{Builder, NatsStore};
use kvsync_tests::servers::{Nats, NatsOptions};
use kvsync_tests::wait::LONG;
use kvsync_tests::{Tested, env};
use libtest_mimic::{Failed, Trial};

use self::clients::Clients;

struct Fresh {
    builder: Builder,
    made: AtomicUsize,
}

pub(crate) fn stores() -> Vec<crate::Store> {
    let fresh = env::nats_url().map_err(|missing| missing.to_string()).map(|url| {
        let builder = NatsStore::builder([url]).bucket(format!("stores-{}", std::process::id()));
        // The machine may be busy.
        let builder = builder.connect_timeout(LONG).command_timeout(LONG).retry_for(LONG);
        Arc::new(Fresh { builder, made: AtomicUsize::new(0) }) as Arc<dyn Harness>
    });
    vec![("nats", fresh)]
}

/// What only this store has to show.
pub(crate) fn trials() -> Vec<Trial> {
    macro_rules! trials {
        ($($file:ident::$name:ident),* $(,)?) => {
            [$((concat!("nats_store::", stringify!($name)), $file::$name as fn() -> Tested)),*]
        };
    }
    let trials = trials![
        checks::a_bucket_that_cannot_be_trusted_is_refused,
        checks::a_bucket_that_forgets_degrades_health,
        checks::a_bucket_that_is_gone_is_made_again_and_is_another,
        checks::a_full_bucket_says_so_and_reads_on,
        checks::a_server_that_cannot_store_or_will_not_let_us_is_told,
        checks::readings_that_may_lag_are_answered_with_and_without_direct_reads,
        checks::the_largest_entry_is_the_servers,
        checks::tls_with_an_authority_of_ones_own,
        checks::what_is_removed_leaves_nothing,
        cluster::what_three_servers_acknowledge_outlives_the_one_that_leads,
        logins::a_certificate_of_ours_lets_in,
        logins::a_file_of_credentials_lets_in,
        logins::a_token_lets_in,
        logins::a_user_in_the_url_lets_in,
        logins::an_nkey_lets_in,
        outages::a_kill_in_mid_traffic_loses_nothing_that_was_acknowledged,
        outages::a_server_that_comes_back_is_found_by_who_waits,
        outages::a_server_that_hangs_ends_every_call,
        outages::an_increment_that_was_cut_off_is_told_and_not_repeated,
        outages::clients_that_race_lose_nothing,
    ];
    let trial = |(name, run): (&str, fn() -> Tested)| {
        Trial::test(name, move || run().map_err(|error| Failed::from(error.to_string())))
    };
    trials.into_iter().map(trial).collect()
}

impl Harness for Fresh {
    fn fresh(&self) -> Stores {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        Stores::both(Arc::new(Clients::connect(&self.builder.clone().prefix(number.to_string())).unwrap()))
    }

    fn unreachable(&self) -> Option<Stores> {
        let server = Nats::start(&NatsOptions::default()).unwrap();
        let hasty =
            NatsStore::builder([server.url()]).connect_timeout(LONG).command_timeout(Duration::from_millis(100));
        let store = hasty.retry_for(Duration::from_millis(50)).connect().unwrap();
        server.kill().unwrap();
        Some(Stores::both(Arc::new(store)))
    }
}
