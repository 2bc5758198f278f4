//! Free loopback ports.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, TcpListener};

use crate::{Error, Result};

/// Ports below those that systems give to outgoing connections, so that a server finds its own free when it restarts.
/// The cluster bus of a Redis node listens 10000 above; that must be free too, and clear of this range.
const FIRST: u16 = 12_000;
const COUNT: u16 = 10_000;
pub(super) const BUS_OFFSET: u16 = 10_000;

/// Starts something on a free port; on another one if a stranger took the first in the meantime.
pub(super) fn with_free_port<T>(mut start: impl FnMut(u16) -> Result<T>) -> Result<T> {
    let mut attempts = 5;
    loop {
        attempts -= 1;
        match start(free_port()?) {
            Err(error) if error.is_port_taken() && attempts > 0 => {}
            result => return result,
        }
    }
}

fn free_port() -> Result<u16> {
    let random = RandomState::new();
    (0..1000_u32)
        .filter_map(|attempt| u16::try_from(random.hash_one(attempt) % u64::from(COUNT)).ok())
        .map(|offset| FIRST + offset)
        .find(|port| is_free(*port) && is_free(port + BUS_OFFSET))
        .ok_or_else(|| {
            let last = FIRST + COUNT - 1;
            Error::new(format!("found no free loopback port between {FIRST} and {last}; stop some servers"))
        })
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
