//! From a commit, through a broker, to the stores of consumers.

mod consuming;
mod endings;
mod hooks;
mod letters;
mod program;
mod publishing;
mod rig;
mod suite;
