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

pub mod config;
pub mod limits;
pub mod smtp;
pub mod listen;
pub mod route;
pub mod relay;
pub mod message;
pub mod replication;
pub mod directory;
pub mod control;
pub mod sample;
pub mod cli;
