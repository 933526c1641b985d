//! Sabotage: ways to break a site from outside, to show that the observers would notice.
//!
//! They are quick enough for every run of the tests.

use std::time::Duration;

use bridgehead::directory::context::contexts;
use bridgehead::directory::{Read, Table, Write};
use bridgehead::replication::engine::Timing;
use bridgehead::replication::wire::Message;

use super::site::Site;

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    None,
    /// A replica keeps something else than what the digest says, as if it were not looked at.
    SkippedDigest,
    /// A replica keeps an entry that its master deleted.
    ForgottenDeletion,
    /// A part is taken and acknowledged, but never kept.
    IgnoredPart,
    /// Nothing is held for the operator.
    NoHolds,
    /// What is not answered is sent again and again at the same pace.
    NoBackOff,
}

impl Sabotage {
    /// Whether a message reaches the engine.
    pub fn lets(self, payload: &[u8]) -> bool {
        let Sabotage::IgnoredPart = self else { return true };
        Message::decode(payload).is_ok_and(|message| message.parts.iter().all(|part| part.part.index != 1))
    }

    pub fn timing(self, timing: Timing) -> Timing {
        match self {
            Sabotage::NoBackOff => Timing { retry_max: Duration::from_secs(300), ..timing },
            _ => timing,
        }
    }

    pub fn delete_percent_max(self, percent: u8) -> u8 {
        if self == Sabotage::NoHolds { 100 } else { percent }
    }

    /// Strikes when the site has applied something.
    pub fn after_apply(self, site: &mut Site) {
        let replicas = contexts(&site.store).expect("the store is sound");
        let Some(replica) =
            replicas.into_iter().find(|record| record.master != site.name && record.entries > 2)
        else {
            return;
        };
        let mut key = replica.number.to_be_bytes().to_vec();
        let end = (replica.number + 1).to_be_bytes();
        match self {
            Sabotage::SkippedDigest => {
                let mut found = None;
                let visit = &mut |key: &[u8], value: &[u8]| {
                    found = Some((key.to_vec(), value.to_vec()));
                    false
                };
                site.store.scan(Table::Entry, &key, &end, visit).expect("the store is sound");
                let Some((at, mut value)) = found else { return };
                if let Some(last) = value.last_mut() {
                    *last ^= 1;
                }
                let mut tx = site.store.begin();
                tx.put(Table::Entry, &at, &value).expect("the store in memory does not fail");
                tx.commit();
            }
            Sabotage::ForgottenDeletion => {
                key.extend([0x77; 16]);
                let mut tx = site.store.begin();
                tx.put(Table::Entry, &key, b"left over").expect("the store in memory does not fail");
                tx.commit();
            }
            _ => {}
        }
    }
}
