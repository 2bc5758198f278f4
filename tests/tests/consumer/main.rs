//! From a commit, through a broker, to the stores of consumers.

mod bounds;
mod consuming;
mod endings;
mod hooks;
mod letters;
mod program;
mod publishing;
mod refusals;
mod rig;
mod suite;
