//! Bundles: writing one for a connected site, and taking one that came.
//!
//! PROMISES
//!   Before anything of a bundle is taken, every message in it was opened and its signature proved: all of the file, or,
//!   with a reason, nothing. To take one twice is harmless.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Seek, Write};

use jiff::Timestamp;
use thiserror::Error;

use super::operation;
use crate::cli::failure::{DATA, NO, OK, TRY_AGAIN};
use crate::config::Config;
use crate::daemon::open_message;
use crate::message::bundle::{BundleError, Reader, Writer};
use crate::message::keys::SiteKey;
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
    let partner = config.partners.iter().find(|partner| partner.card.name() == site);
    let card = &partner.ok_or_else(|| CreateError::NotConnected(site.to_owned()))?.card;
    if messages.is_empty() {
        return Err(CreateError::Empty(site.to_owned()));
    }
    let mut writer = Writer::new(out)?;
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
    #[error("message {0} of the bundle: {1}; nothing was taken")]
    Open(u64, OpenError),
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
            ApplyError::File(_) | ApplyError::Open(..) | ApplyError::Message(..) => DATA,
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
            matches!(event, Event::NotApplied { .. } | Event::Held { .. } | Event::Forked { .. })
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

/// Takes a bundle; `tell` gives the engine each message and says what followed.
pub fn apply(
    config: &Config,
    key: &SiteKey,
    mut file: File,
    tell: &mut dyn FnMut(Input) -> Result<Vec<Event>, String>,
) -> Result<Done, ApplyError> {
    let mut done = Done::default();
    each(config, key, &mut file, &mut |opened| {
        done.messages += 1;
        done.from = opened.header.from;
        done.made = done.made.max(Some(opened.header.time));
        Ok(())
    })?;
    let mut events = Vec::new();
    each(config, key, &mut file, &mut |opened| {
        // As what was overtaken: a file may be older than mail that came since, and what it says besides its parts
        // is not news.
        let header = Header { seq: 0, time: opened.header.time, message_id: None };
        let input = Input::Received { from: opened.header.from, header, payload: opened.payload };
        events.extend(tell(input).map_err(ApplyError::Store)?);
        Ok(())
    })?;
    done.events = events;
    Ok(done)
}

fn each(
    config: &Config,
    key: &SiteKey,
    file: &mut File,
    take: &mut dyn FnMut(Opened) -> Result<(), ApplyError>,
) -> Result<(), ApplyError> {
    file.rewind()?;
    let reader = Reader::new(BufReader::with_capacity(256 << 10, file))?;
    for (number, sealed) in (1..).zip(reader) {
        let opened = open(config, key, &sealed?).map_err(|error| ApplyError::Open(number, error))?;
        Message::decode(&opened.payload).map_err(|error| ApplyError::Message(number, error))?;
        take(opened)?;
    }
    Ok(())
}

/// Opens one sealed message to this site.
pub fn open(config: &Config, key: &SiteKey, sealed: &[u8]) -> Result<Opened, OpenError> {
    open_message(config, key, sealed, Timestamp::now())
}
