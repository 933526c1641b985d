//! Replication, pure: what to send, what to apply, when to speak next. No sockets, files or clocks.

pub mod checkpoint;
pub mod transfer;
pub mod parts;
pub mod verify;
pub mod cbor;
pub mod vector;
pub mod wire;
pub mod engine;
pub mod greeting;
pub mod pacing;
pub mod peer;
pub mod provenance;
pub mod explain;
pub mod schedule;
pub mod status;
