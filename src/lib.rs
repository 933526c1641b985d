//! bridgehead: directory replication over e-mail, beside any mail server.
//!
//! Mail flows down this list; nothing flows back up except a reply.
//!
//! ```text
//!   MTA ──► listen ──► route ──► relay ──────────────► next hop
//!                        │                                ▲
//!                        ▼ replication mailbox            │ submission
//!                     message (open, verify)           message (seal)
//!                        ▼                                │
//!                     replication (pure engine) ──────────┘
//!                        ▼
//!                     directory (store, LDIF)  ◄── cli, control
//! ```

#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod directory;
pub mod limits;
pub mod listen;
pub mod log;
pub mod message;
pub mod relay;
pub mod replication;
pub mod route;
pub mod sample;
pub mod smtp;
