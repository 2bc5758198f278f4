//! A table is filled into a store, beside whoever writes it.

mod barrier;
mod beside_writers;
mod bulk;
mod filling;
mod huge;
mod names;
mod overflow;
mod pages;
mod rig;
