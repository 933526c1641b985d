//! Bundles: writing one for a connected site, and taking one that came.
//!
//! PROMISES
//!   Before anything of a bundle is taken, every message in it was opened and its signature proved: all of the file, or,
//!   with a reason, nothing. To take one twice is harmless.
//!   The file names its maker's cards, so that it is taken also where a renewal of keys has not been heard of: by the
//!   same rules, and policy, as a card that comes by mail.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Seek, Write};

use jiff::Timestamp;
use thiserror::Error;

use super::operation;
use crate::cli::failure::{DATA, NO, OK, TRY_AGAIN};
use crate::config::Config;
use crate::daemon::open_message;
use crate::daemon::trust::{self, Successor, TrustError};
use crate::message::bundle::{BundleError, Reader, Writer};
use crate::message::keys::SiteKey;
use crate::message::own::OwnCardError;
use crate::message::random;
use crate::message::seal::{self, OpenError, Opened, SealError};
use crate::replication::engine::bundle::Bundled;
use crate::replication::engine::{Event, Header, Input};
use crate::replication::wire::{Message, WireError};

/// Why there is no bundle.
#[derive(Debug, Error)]
pub enum CreateError {
    #[error("no site {0} is connected")]
    NotConnected(String),
    #[error("there is nothing to send to {0}: this site holds no entries that go to it")]
    Empty(String),
    #[error("this site's card: {0}")]
    Card(#[from] OwnCardError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("writing the bundle: {0}")]
    Io(#[from] io::Error),
}

/// Seals the messages for the site and writes them.
pub fn write(
    config: &Config,
    key: &SiteKey,
    site: &str,
    messages: &[Bundled],
    out: &mut dyn Write,
) -> Result<(), CreateError> {
    let partner = config.partner(site);
    let card = &partner.ok_or_else(|| CreateError::NotConnected(site.to_owned()))?.card;
    if messages.is_empty() {
        return Err(CreateError::Empty(site.to_owned()));
    }
    let mut writer = Writer::new(out, &trust::own_cards(config, key)?.print())?;
    for (seq, payload) in messages {
        let (from, time) = (config.site.name.clone(), Timestamp::now());
        let header = seal::Header { from, to: site.to_owned(), seq: *seq, time };
        writer.push(&seal::seal(key, card, &header, payload, &mut random::system())?)?;
    }
    writer.finish()?;
    Ok(())
}

/// Why nothing of a bundle was taken.
#[derive(Debug, Error)]
pub enum ApplyError {
    #[error("{0}; nothing of it was taken")]
    File(#[from] BundleError),
    #[error("the cards in the bundle: {0}; nothing was taken")]
    Cards(#[from] TrustError),
    #[error("message {0} of the bundle: {1}; nothing was taken")]
    Open(u64, OpenError),
    #[error(
        "the bundle is for {0}, and nothing was taken; `bridgehead bundle create` names the site that it is for"
    )]
    For(String),
    #[error("message {0} of the bundle: {1}; nothing was taken")]
    Message(u64, WireError),
    #[error("{0}")]
    Store(String),
    #[error("reading the bundle: {0}")]
    Io(#[from] io::Error),
}

impl ApplyError {
    pub fn status(&self) -> u8 {
        match self {
            ApplyError::File(BundleError::Io(_)) | ApplyError::Store(_) | ApplyError::Io(_) => TRY_AGAIN,
            ApplyError::Cards(TrustError::File { .. } | TrustError::TooMany) => TRY_AGAIN,
            ApplyError::Cards(_)
            | ApplyError::File(_)
            | ApplyError::Open(..)
            | ApplyError::For(_)
            | ApplyError::Message(..) => DATA,
        }
    }
}

/// What came of a bundle.
#[derive(Debug, Default)]
pub struct Done {
    messages: u64,
    from: String,
    made: Option<Timestamp>,
    events: Vec<Event>,
}

impl Done {
    /// 1 if something of it waits or did not fit.
    pub fn status(&self) -> u8 {
        let stopped = |event: &Event| {
            matches!(
                event,
                Event::NotApplied { .. } | Event::Held { .. } | Event::Forked { .. } | Event::Crowded { .. }
            )
        };
        if self.events.iter().any(stopped) { NO } else { OK }
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let made = self.made.map_or_else(String::new, |time| format!(", made at {time:.0}"));
        writeln!(f, "{} message(s) of {}{made}", self.messages, self.from)?;
        match operation::report(&self.events).as_str() {
            "nothing to do" => {
                write!(f, "nothing changed: this site holds what the bundle holds, or newer")
            }
            report => f.write_str(report),
        }
    }
}

/// A bundle in which every message was opened.
pub struct Proved {
    file: File,
    /// The configuration by which that went.
    config: Config,
    successor: Option<Successor>,
    done: Done,
}

/// Looks at all of a bundle and changes nothing.
pub fn prove(config: &Config, key: &SiteKey, mut file: File) -> Result<Proved, ApplyError> {
    let mut config = config.clone();
    let successor = trust::by_file(&config, reader(&mut file)?.cards())?;
    if let Some(Successor { partner, .. }) = &successor {
        let known = config.partners.iter_mut().filter(|known| known.file == partner.file);
        known.for_each(|known| *known = partner.clone());
    }
    let mut done = Done::default();
    each(&config, key, &mut file, &mut |opened| {
        done.messages += 1;
        done.from = opened.header.from;
        done.made = done.made.max(Some(opened.header.time));
        Ok(())
    })?;
    Ok(Proved { file, config, successor, done })
}

impl Proved {
    /// Pins the card by which the messages opened, if it was not known. The configuration is then to be read again.
    pub fn pin(&self) -> Result<bool, ApplyError> {
        self.successor.as_ref().map(Successor::pin).transpose()?;
        Ok(self.successor.is_some())
    }

    /// Takes it; `tell` gives the engine each message and says what followed.
    pub fn take(
        mut self,
        key: &SiteKey,
        tell: &mut dyn FnMut(Input) -> Result<Vec<Event>, String>,
    ) -> Result<Done, ApplyError> {
        let mut events = Vec::new();
        each(&self.config, key, &mut self.file, &mut |opened| {
            // As what was overtaken: a file may be older than mail that came since, and what it says besides its parts
            // is not news.
            let header = Header { seq: 0, time: opened.header.time, message_id: None };
            let input = Input::Received { from: opened.header.from, header, payload: opened.payload };
            events.extend(tell(input).map_err(ApplyError::Store)?);
            Ok(())
        })?;
        Ok(Done { events, ..self.done })
    }
}

fn reader(file: &mut File) -> Result<Reader<BufReader<&mut File>>, ApplyError> {
    file.rewind()?;
    Ok(Reader::new(BufReader::with_capacity(256 << 10, file))?)
}

fn each(
    config: &Config,
    key: &SiteKey,
    file: &mut File,
    take: &mut dyn FnMut(Opened) -> Result<(), ApplyError>,
) -> Result<(), ApplyError> {
    for (number, sealed) in (1..).zip(reader(file)?) {
        let opened = open(config, key, &sealed?).map_err(|error| match error {
            OpenError::NotOurKey(other) => ApplyError::For(owner(config, other)),
            error => ApplyError::Open(number, error),
        })?;
        Message::decode(&opened.payload).map_err(|error| ApplyError::Message(number, error))?;
        take(opened)?;
    }
    Ok(())
}

/// Whose key that is, as far as the cards here say; the file itself says it to nobody else.
fn owner(config: &Config, key: [u8; 8]) -> String {
    let known = config.partners.iter().find(|partner| partner.card.public.sealing.id() == key);
    known.map_or_else(
        || format!("a key that is not ours ({:016x}), nor of a site known here", u64::from_be_bytes(key)),
        |partner| format!("site {}", partner.card.name()),
    )
}

/// Opens one sealed message to this site.
pub fn open(config: &Config, key: &SiteKey, sealed: &[u8]) -> Result<Opened, OpenError> {
    open_message(config, key, sealed, Timestamp::now())
}
