//! Which addresses the directory knows, for `known_recipients_only`.
//!
//! PROMISES
//!   An address counts as soon as its entry is committed, within [`LOOK_AGAIN`]. In doubt (the store cannot
//!   be read) an address is known: the next hop still decides.
//!
//! LIMITS
//!   All addresses are held in memory, some 100 octets each, and read anew when any naming context has changed.
//!
//! BUGS
//!   Domains and local parts compare without regard to case, as mail systems do in practice.

use std::collections::HashSet;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::directory::context::contexts;
use crate::directory::sqlite::SqliteReader;
use crate::directory::{Position, Read, StoreError, lookup};
use crate::listen::Recipients;
use crate::smtp::Path;

/// How old the answer to "has anything changed?" may be.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Attributes that hold addresses: RFC 4524, RFC 822-MTA schemas, and Exchange's, whose values begin with `smtp:`.
const ATTRIBUTES: [&str; 4] = ["mail", "mailLocalAddress", "mailAlternateAddress", "proxyAddresses"];

/// The directory's addresses.
pub struct KnownRecipients {
    data: PathBuf,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    addresses: Arc<HashSet<String>>,
    positions: Vec<(u32, Position)>,
    looked: Option<Instant>,
}

impl KnownRecipients {
    pub fn new(data: PathBuf) -> KnownRecipients {
        KnownRecipients { data, known: Arc::default() }
    }
}

impl Recipients for KnownRecipients {
    fn is_known<'a>(&'a self, path: &'a Path) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        let (data, known) = (self.data.clone(), self.known.clone());
        let address = path.without_detail().as_str().to_lowercase();
        Box::pin(async move {
            let looked = tokio::task::spawn_blocking(move || look(&data, &known)).await;
            match looked {
                Ok(Ok(addresses)) => addresses.contains(&address),
                Ok(Err(failure)) => {
                    warn!(event = "recipients-unknown", %failure, "the directory cannot be read; the next hop decides");
                    true
                }
                Err(_) => true,
            }
        })
    }
}

fn look(data: &std::path::Path, known: &Mutex<Known>) -> Result<Arc<HashSet<String>>, StoreError> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if known.looked.is_some_and(|looked| looked.elapsed() < LOOK_AGAIN) {
        return Ok(known.addresses.clone());
    }
    let mut reader = SqliteReader::open(data)?;
    let snapshot = reader.snapshot()?;
    let positions: Vec<_> =
        contexts(&snapshot)?.iter().map(|record| (record.number, record.position)).collect();
    if known.looked.is_none() || positions != known.positions {
        known.addresses = Arc::new(addresses(&snapshot, &positions)?);
        known.positions = positions;
    }
    known.looked = Some(Instant::now());
    Ok(known.addresses.clone())
}

fn addresses(read: &dyn Read, positions: &[(u32, Position)]) -> Result<HashSet<String>, StoreError> {
    let mut found = HashSet::new();
    for (number, _) in positions {
        lookup::scan_entries(read, *number, &mut |entry| {
            for value in ATTRIBUTES.iter().flat_map(|name| entry.attributes.values(name)) {
                let address = String::from_utf8_lossy(value).to_lowercase();
                let address = address.strip_prefix("smtp:").unwrap_or(&address);
                if address.contains('@') {
                    found.insert(address.to_owned());
                }
            }
            true
        })?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::import::own_contexts;
    use crate::directory::sqlite::SqliteStore;

    #[tokio::test]
    async fn addresses_are_known_once_their_entries_are() {
        let dir = tempfile::tempdir().unwrap();
        let config =
            crate::config::parse(&dir.path().join("f"), include_str!("../../config/bridgehead.toml"))
                .unwrap();
        let mut store = SqliteStore::open(dir.path()).unwrap();
        let recipients = KnownRecipients::new(dir.path().to_owned());
        let knows = async |address: &str| recipients.is_known(&Path::parse(address).unwrap()).await;
        let mut tx = store.begin().unwrap();
        own_contexts(&mut tx, &config.site).unwrap();
        tx.commit().unwrap();
        assert!(!knows("ada@alpha.example").await);

        let ldif = "dn: cn=Ada,ou=alpha,o=Example\ncn: Ada\nmail: Ada@alpha.example\nproxyAddresses: smtp:countess@alpha.example\n";
        let mut tx = store.begin().unwrap();
        let number = contexts(&tx).unwrap()[0].number;
        crate::directory::import::import(&mut tx, number, [1; 12], ldif.as_bytes(), &|_| true, &mut |_| {})
            .unwrap();
        tx.commit().unwrap();
        tokio::time::sleep(LOOK_AGAIN).await;
        for address in ["ada@ALPHA.example", "ADA+lists@alpha.example", "countess@alpha.example"] {
            assert!(knows(address).await, "{address}");
        }
        assert!(!knows("bob@alpha.example").await);
    }
}
