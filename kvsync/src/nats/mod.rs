//! What all that speaks to NATS shares: how servers are reached and who we are, the connection, and what its errors
//! mean.

mod connect;
mod error;
mod link;
mod token;

pub(crate) use self::connect::{Connect, Login, Servers, connect_methods};
pub(crate) use self::error::{Refused, cut_off, is_missing, is_none, is_too_large, publishing};
pub(crate) use self::link::{Cut, Link};
pub(crate) use self::token::{push_piece, push_token};
