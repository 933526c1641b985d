//! Offline bundles: sealed messages in a file, for a first load by disk or a link in one direction.
//!
//! PROMISES
//!   Read as a stream; memory is that of one message. A file that was cut off anywhere is known to be, and what stood
//!   before the cut is still given. Whoever carries the file can leave messages out or repeat them, as mail can, and
//!   nothing else: every message is sealed, and the engine takes them as it takes those that come by mail.
//!
//! FORMAT
//!   `8B 42 48 42 0D 0A 1A 0A`, one octet of version, 1; the sender's cards as text, oldest first ([`super::own`]), after
//!   their length, 4 octets big-endian; then sealed messages one after the other, each of the length that
//!   it declares; then `8B 42 48 45 0D 0A 1A 0A` and the number of messages, 8 octets big-endian.
//!
//! FAILURE
//!   [`BundleError`]: this machine's (`Io`), or that of whoever made or carried the file.

use std::io::{self, Read, Write};

use thiserror::Error;

use super::envelope::{PAYLOAD_BYTES_MAX, PREFIX_BYTES, SEALED_OVERHEAD_BYTES_MAX, declared_bytes};
use super::own::CARDS_BYTES_MAX;

/// What a bundle begins with.
pub const BUNDLE_MAGIC: [u8; 8] = *b"\x8bBHB\r\n\x1a\n";
/// What stands after the last message.
const END_MAGIC: [u8; 8] = *b"\x8bBHE\r\n\x1a\n";
const VERSION: u8 = 1;
const END_BYTES: usize = 16;
/// What stands before the cards: magic, version, their length.
const HEAD_BYTES: usize = BUNDLE_MAGIC.len() + 1 + 4;

/// Why a bundle cannot be read on.
#[derive(Debug, Error)]
pub enum BundleError {
    #[error("the bundle cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("the file is no bridgehead bundle")]
    NotABundle,
    #[error("the bundle has format {0}, newer than this program")]
    Version(u8),
    #[error("the bundle is cut off after {0} whole messages")]
    Truncated(u64),
    #[error("the bundle names no cards of its sender that can be read")]
    Cards,
    #[error("the bundle is damaged after {0} whole messages")]
    Damaged(u64),
    #[error("the bundle ends after {present} messages and should hold {expected}")]
    Missing { expected: u64, present: u64 },
}

/// Writes a bundle.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    messages: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a bundle with the sender's cards ([`super::own::OwnCards::print`]), by which whoever knows a former one
    /// finds the key that signed the messages.
    pub fn new(mut to: W, cards: &str) -> io::Result<Self> {
        let too_long = || io::Error::new(io::ErrorKind::InvalidInput, "too many cards");
        let length = u32::try_from(cards.len()).ok().filter(|_| cards.len() <= CARDS_BYTES_MAX);
        to.write_all(&BUNDLE_MAGIC)?;
        to.write_all(&[VERSION])?;
        to.write_all(&length.ok_or_else(too_long)?.to_be_bytes())?;
        to.write_all(cards.as_bytes())?;
        Ok(Writer { to, messages: 0 })
    }

    /// Adds a message as [`super::seal::seal`] made it.
    pub fn push(&mut self, sealed: &[u8]) -> io::Result<()> {
        if declared_bytes(sealed) != Some(sealed.len()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not one whole sealed message"));
        }
        self.messages += 1;
        self.to.write_all(sealed)
    }

    /// Ends the bundle. Without this it counts as cut off.
    pub fn finish(mut self) -> io::Result<W> {
        self.to.write_all(&END_MAGIC)?;
        self.to.write_all(&self.messages.to_be_bytes())?;
        self.to.flush()?;
        Ok(self.to)
    }
}

/// Reads the messages of a bundle; ends after the first error.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    cards: String,
    messages: u64,
    is_over: bool,
}

impl<R: Read> Reader<R> {
    pub fn new(mut from: R) -> Result<Self, BundleError> {
        let head = read_up_to(&mut from, HEAD_BYTES)?;
        let length = match head.strip_prefix(&BUNDLE_MAGIC[..]) {
            Some([VERSION, length @ ..]) => length.try_into().map_err(|_| BundleError::Truncated(0))?,
            Some([version, ..]) => return Err(BundleError::Version(*version)),
            _ => return Err(BundleError::NotABundle),
        };
        let length = u32::from_be_bytes(length) as usize;
        if length > CARDS_BYTES_MAX {
            return Err(BundleError::Cards);
        }
        let cards = read_up_to(&mut from, length)?;
        if cards.len() < length {
            return Err(BundleError::Truncated(0));
        }
        let cards = String::from_utf8(cards).map_err(|_| BundleError::Cards)?;
        Ok(Reader { from, cards, messages: 0, is_over: false })
    }

    /// The sender's cards as it names them, oldest first. Nothing of them is proved.
    pub fn cards(&self) -> &str {
        &self.cards
    }

    /// The next message, or none after the end mark.
    fn read(&mut self) -> Result<Option<Vec<u8>>, BundleError> {
        let mut message = read_up_to(&mut self.from, END_BYTES)?;
        if let Some(count) = message.strip_prefix(&END_MAGIC[..]) {
            let count = count.try_into().map_err(|_| BundleError::Truncated(self.messages))?;
            return self.check_end(u64::from_be_bytes(count));
        }
        message.extend(read_up_to(&mut self.from, PREFIX_BYTES - END_BYTES)?);
        if message.len() < PREFIX_BYTES {
            return Err(BundleError::Truncated(self.messages));
        }
        let expected =
            declared_bytes(&message).filter(|bytes| *bytes <= PAYLOAD_BYTES_MAX + SEALED_OVERHEAD_BYTES_MAX);
        let expected = expected.ok_or(BundleError::Damaged(self.messages))?;
        message.extend(read_up_to(&mut self.from, expected - PREFIX_BYTES)?);
        if message.len() < expected {
            return Err(BundleError::Truncated(self.messages));
        }
        self.messages += 1;
        Ok(Some(message))
    }

    fn check_end(&mut self, expected: u64) -> Result<Option<Vec<u8>>, BundleError> {
        let present = self.messages;
        if !read_up_to(&mut self.from, 1)?.is_empty() {
            return Err(BundleError::Damaged(present));
        }
        if expected == present { Ok(None) } else { Err(BundleError::Missing { expected, present }) }
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Vec<u8>, BundleError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let message = self.read().transpose();
        self.is_over = !matches!(message, Some(Ok(_)));
        message
    }
}

/// Reads `bytes` octets, fewer at the end of the file; memory grows with what is there, not with what is announced.
fn read_up_to(from: &mut impl Read, bytes: usize) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    from.take(bytes as u64).read_to_end(&mut octets)?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::card::tests::site;
    use crate::message::random::Seeded;
    use crate::message::seal::{Header, seal};

    const CARDS: &str = "the cards";
    /// Where the first message begins.
    const BEGIN: usize = HEAD_BYTES + CARDS.len();

    fn messages() -> Vec<Vec<u8>> {
        let (alpha, beta) = (site("alpha", 1).0, site("beta", 2).1);
        let header =
            |seq| Header { from: "alpha".into(), to: "beta".into(), seq, time: jiff::Timestamp::UNIX_EPOCH };
        (0..3)
            .map(|seq| seal(&alpha, &beta, &header(seq), b"payload", &mut Seeded::new(seq)).unwrap())
            .collect()
    }

    fn bundle() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), CARDS).unwrap();
        messages().iter().for_each(|message| writer.push(message).unwrap());
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> (Vec<Vec<u8>>, Option<BundleError>) {
        let mut messages = Vec::new();
        let reader = match Reader::new(bytes) {
            Ok(reader) => reader,
            Err(error) => return (messages, Some(error)),
        };
        for message in reader {
            match message {
                Ok(message) => messages.push(message),
                Err(error) => return (messages, Some(error)),
            }
        }
        (messages, None)
    }

    #[test]
    fn what_is_bundled_reads_back() {
        let (read, error) = read(&bundle());
        assert!(error.is_none() && read == messages());
        assert_eq!(Reader::new(&bundle()[..]).unwrap().cards(), CARDS);
        let empty = Writer::new(Vec::new(), "").unwrap().finish().unwrap();
        assert_eq!(empty.len(), 29);
        assert_eq!(Reader::new(&empty[..]).unwrap().count(), 0);
        assert!(Writer::new(Vec::new(), &"x".repeat(CARDS_BYTES_MAX + 1)).is_err());
        assert!(Writer::new(Vec::new(), "").unwrap().push(b"no message").is_err());
    }

    #[test]
    fn a_cut_anywhere_is_seen_and_what_stands_before_it_is_given() {
        let (whole, size) = (bundle(), messages()[0].len());
        for length in 0..whole.len() {
            let (read, error) = read(&whole[..length]);
            assert!(error.is_some(), "{length}");
            assert_eq!(read.len(), (length.saturating_sub(BEGIN) / size).min(3), "{length}");
        }
    }

    #[test]
    fn damage_is_told() {
        let whole = bundle();
        let changed = |at: usize, octet: u8| {
            let mut bytes = whole.clone();
            bytes[at] = octet;
            read(&bytes).1.unwrap()
        };
        let last = whole.len() - 1;
        assert!(matches!(changed(0, 0), BundleError::NotABundle));
        assert!(matches!(changed(8, 2), BundleError::Version(2)));
        assert!(matches!(changed(9, 0xff), BundleError::Cards));
        assert!(matches!(changed(HEAD_BYTES, 0xff), BundleError::Cards));
        assert!(matches!(changed(BEGIN, 0), BundleError::Damaged(0)));
        assert!(matches!(changed(BEGIN + 17, 0xff), BundleError::Damaged(0)));
        assert!(matches!(changed(last, 4), BundleError::Missing { expected: 4, present: 3 }));
        let longer = [&whole[..], b"x"].concat();
        assert!(matches!(read(&longer).1, Some(BundleError::Damaged(3))));
        let size = messages()[0].len();
        let without_second = [&whole[..BEGIN + size], &whole[BEGIN + 2 * size..]].concat();
        assert!(matches!(read(&without_second).1, Some(BundleError::Missing { expected: 3, present: 2 })));
    }
}
