//! Mail to the replication mailbox as mail systems leave it, and delivery reports: any octets, an answer.
#![no_main]

use bridgehead::message::{bounce, mime};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(attachment) = mime::extract(data) {
        assert!(attachment.sealed.len() <= data.len());
    }
    if let Some(bounce) = bounce::parse(data) {
        assert!(!bounce.recipients.is_empty() && bounce.recipients.len() <= bounce::RECIPIENTS_MAX);
        assert!(bounce.tokens.len() <= bounce::TOKENS_MAX);
        let _ = bounce.worst().map(|worst| worst.cause());
    }
});
