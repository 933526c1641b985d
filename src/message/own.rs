//! This site's own cards, as issued: the present one, and those by which a partner that missed some gets there.
//!
//! PROMISES
//!   A card is issued when there is none, or when what it says is not so any more: another mailbox, other naming
//!   contexts, renewed keys. Its serial is higher than those before, and it is endorsed by the former key if there is
//!   one. Until then the card stays the same, octet by octet.
//!
//! FORMAT
//!   The cards as text, oldest first, each but the last followed by a line `# ---`. Of each signing key the
//!   newest card is kept.
//!
//! FAILURE
//!   A file that is lost is made again from the keys: with later serials, so that partners take it for a succession.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jiff::Timestamp;
use thiserror::Error;

use super::card::{Card, CardError, CardFields};
use super::keys::{FORMER_PAIRS_MAX, SiteKey};
use super::statement::STATEMENT_BYTES_MAX;

/// Cards that are kept: one for each key.
pub const OWN_CARDS_MAX: usize = 1 + FORMER_PAIRS_MAX;

/// Octets of all of them as text.
pub const CARDS_BYTES_MAX: usize = OWN_CARDS_MAX * (STATEMENT_BYTES_MAX + BETWEEN.len());

const BETWEEN: &str = "# ---\n";

/// This site's cards, oldest first; there is one at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnCards {
    cards: Vec<(Card, String)>,
}

/// This machine's fault, or its operator's.
#[derive(Debug, Error)]
pub enum OwnCardError {
    #[error("cannot read or write {path}: {source}")]
    File { path: String, source: io::Error },
    #[error(transparent)]
    Card(#[from] CardError),
}

/// The cards in the file, with a new one at the end if `fields` or the key are not those of the last. The serial and the
/// time in `fields` are not looked at.
pub fn settle(
    path: &Path,
    key: &SiteKey,
    fields: &CardFields,
    now: Timestamp,
) -> Result<OwnCards, OwnCardError> {
    let failed = |source| OwnCardError::File { path: path.display().to_string(), source };
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text.map_err(failed)?,
    };
    let (own, news) = settle_text(&text, key, fields, now)?;
    if news {
        write(path, &own.print()).map_err(failed)?;
    }
    Ok(own)
}

/// The same with the text of the file; and whether there is a new card.
pub fn settle_text(
    text: &str,
    key: &SiteKey,
    fields: &CardFields,
    now: Timestamp,
) -> Result<(OwnCards, bool), CardError> {
    let mut own = OwnCards::parse(text);
    // Somebody else's cards, as in a directory that was copied for another site.
    own.cards.retain(|(card, _)| card.name() == fields.name);
    let news = !own.is_up_to_date(key, fields);
    if news {
        own.issue(key, fields, now)?;
    }
    Ok((own, news))
}

impl OwnCards {
    /// The present card.
    pub fn current(&self) -> &Card {
        &self.cards[self.cards.len() - 1].0
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.cards[self.cards.len() - 1].1
    }

    /// The texts of those before it, oldest first.
    pub fn former_texts(&self) -> impl Iterator<Item = &str> {
        self.cards[..self.cards.len() - 1].iter().map(|(_, text)| text.as_str())
    }

    fn parse(text: &str) -> OwnCards {
        let sound = |text: &str| Some((Card::parse_verified(text).ok()?, text.to_owned()));
        OwnCards { cards: each(text).filter_map(sound).collect() }
    }

    /// All of them, for [`each`] to read.
    pub fn print(&self) -> String {
        join(&self.cards.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>())
    }

    fn is_up_to_date(&self, key: &SiteKey, fields: &CardFields) -> bool {
        self.cards.last().is_some_and(|(last, _)| {
            let CardFields { serial, issued, .. } = last.fields;
            last.public == key.public() && last.fields == CardFields { serial, issued, ..fields.clone() }
        })
    }

    fn issue(&mut self, key: &SiteKey, fields: &CardFields, issued: Timestamp) -> Result<(), CardError> {
        // A former key whose card is not known any more leads the way all the same.
        let missing = key.former().filter(|former| {
            self.cards.iter().all(|(card, _)| card.public.signing != former.public().signing)
        });
        if let Some(former) = missing {
            self.issue(&former, fields, issued)?;
        }
        let last = self.cards.last().map_or(0, |(card, _)| card.fields.serial);
        // Seconds, so that a serial is higher even if this file was lost.
        let serial = (last + 1).max(issued.as_second().unsigned_abs());
        let text = Card::issue_successor(key, &CardFields { serial, issued, ..fields.clone() })?;
        let card = Card::parse_verified(&text)?;
        self.cards.retain(|(other, _)| other.public.signing != card.public.signing);
        self.cards.push((card, text));
        let excess = self.cards.len().saturating_sub(OWN_CARDS_MAX);
        self.cards.drain(..excess);
        Ok(())
    }
}

/// Several cards as one text, for [`each`] to read.
pub fn join(cards: &[&str]) -> String {
    cards.join(BETWEEN)
}

/// The single cards of what [`join`] wrote. Nothing of them is proved.
pub fn each(text: &str) -> impl Iterator<Item = &str> {
    text.split(BETWEEN).filter(|text| text.len() <= STATEMENT_BYTES_MAX)
}

/// Replaces a small file in one step; it is on the disk when this returns.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = std::fs::File::create(&new)?;
    file.write_all(text.as_bytes())?;
    if let Ok(old) = std::fs::metadata(path) {
        // Whoever runs the command, the daemon's user must be able to go on.
        let own = file.metadata()?;
        if (old.uid(), old.gid()) != (own.uid(), own.gid()) {
            std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.set_permissions(old.permissions())?;
    }
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    std::fs::File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::card::tests::{fields, key};
    use crate::message::random::Seeded;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_card_stays_until_what_it_says_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cards");
        let first = settle(&path, &key(1), &fields("alpha"), at(1000)).unwrap();
        assert_eq!(first.current().fields.serial, 1000);
        assert_eq!(settle(&path, &key(1), &fields("alpha"), at(2000)).unwrap(), first);
        let moved = CardFields { mailbox: "new@alpha.example".into(), ..fields("alpha") };
        let second = settle(&path, &key(1), &moved, at(900)).unwrap();
        assert_eq!(second.current().fields.serial, 1001, "higher even if the clock was put back");
        assert_eq!(second.former_texts().count(), 0, "the same key needs no way");
        assert!(first.current().succeeded_by(second.text()).is_ok());
    }

    #[test]
    fn whoever_missed_some_cards_gets_to_the_present_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cards");
        let mut rng = Seeded::new(9);
        let mut key = key(1);
        let mut seen = vec![settle(&path, &key, &fields("alpha"), at(1)).unwrap()];
        for second in 2..5 {
            key = key.renew(&mut rng);
            seen.push(settle(&path, &key, &fields("alpha"), at(second)).unwrap());
            // A move between two renewals does not cut the way.
            let moved = CardFields { mailbox: format!("m{second}@alpha.example"), ..fields("alpha") };
            seen.push(settle(&path, &key, &moved, at(second)).unwrap());
        }
        let last = seen.last().unwrap().clone();
        // The same again from the keys alone.
        let lost = settle(&directory.path().join("other"), &key, &fields("alpha"), at(100)).unwrap();
        for known in &seen {
            for own in [&last, &lost] {
                let way = own.former_texts().chain([own.text()]);
                assert_eq!(known.current().succeeded_by_all(way).unwrap(), *own.current());
            }
        }
        let stranger =
            Card::parse_verified(&Card::issue(&super::super::card::tests::key(7), &fields("alpha")).unwrap());
        let way = last.former_texts().chain([last.text()]);
        assert_eq!(stranger.unwrap().succeeded_by_all(way), Err(CardError::NotEndorsed));
    }
}
