//! What holds when a store forgets: entries that expire or are evicted, servers that run out of memory, are
//! restarted or replaced, and databases that are restored.

mod expiring;
mod failover;
mod forgetting;
mod policies;
mod restored;
mod rig;
mod subsets;
