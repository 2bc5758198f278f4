//! From a commit, through a broker, to the stores of consumers.

mod bounds;
mod consuming;
mod end_to_end;
mod endings;
mod fan_out;
mod hooks;
mod languages;
mod letters;
mod places;
mod program;
mod publishing;
mod refusals;
mod rig;
mod suite;
mod telling;
mod troubles;
