//! Operations on a site, and the socket by which commands reach the running daemon.
//!
//! The operator should not have to know whether the daemon runs: what only reads opens the store for
//! itself; what writes asks the daemon, or opens the store when there is none.

pub mod bundle;
pub mod conversation;
pub mod frame;
pub mod import;
pub mod inspect;
pub mod operation;
pub mod progress;
pub mod server;
