//! Models, from what is derived for them to what a fetch says of them, and the servers that the other tests use.

mod derive_pass;
mod end_to_end;
mod fetch;
mod golden;
mod health;
mod key_generations;
mod layers;
mod shared_servers;
