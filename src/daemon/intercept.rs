//! What happens to a message to the replication mailbox: found, opened, verified, handed to the
//! replicator; 250 once it is durable.
//!
//! FAILURE
//!   Whatever is wrong with the message itself: 5xx with the reason, the store unchanged; its sender is told
//!   by its own mail system, and a copy is kept. Whatever is wrong here, the copy that cannot be kept too: 451, or 452
//!   for a full disk (RFC 5321, section 4.2.3); the sending server keeps the message.

use std::fmt::Display;
use std::sync::Arc;

use jiff::Timestamp;
use tracing::{info, warn};

use super::Site;
use super::counters::Mail;
use super::replicator::Failure;
use crate::config::Config;
use crate::directory::StoreError;
use crate::listen::intercept::{Delivery, Intercept, InterceptedEnvelope};
use crate::message::bounce::{self, Action, Bounce, Cause};
use crate::message::keys::SiteKey;
use crate::message::seal::{self, OpenError, Opened};
use crate::message::{Refusal, mime, token};
use crate::replication::engine::quarantine::copy_bytes_max;
use crate::replication::engine::{BounceStatus, Header, Input, Outcome};
use crate::smtp::{Enhanced, Reply};

/// The daemon's end of the seam between relay and replication.
pub struct Interceptor {
    site: Arc<Site>,
}

impl Interceptor {
    pub fn new(site: Arc<Site>) -> Interceptor {
        Interceptor { site }
    }
}

impl Intercept for Interceptor {
    fn deliver(&self, envelope: InterceptedEnvelope, message: Vec<u8>) -> Delivery<'_> {
        Box::pin(deliver(self.site.clone(), envelope, message))
    }
}

/// What a message turned out to be.
enum Found {
    /// What it says, and the Message-ID of the mail.
    Sealed(Opened, Option<String>),
    Bounce(Bounce),
}

/// Takes one message; the reply is the answer to its final dot.
pub async fn deliver(site: Arc<Site>, envelope: InterceptedEnvelope, message: Vec<u8>) -> Reply {
    let bytes = message.len();
    let looking = site.clone();
    let null = envelope.reverse_path.is_null();
    let message = Arc::new(message);
    let looked_at = message.clone();
    // Opening costs processor time in proportion to the message; sessions must not wait for it.
    let found = tokio::task::spawn_blocking(move || find(&looking, null, &looked_at)).await;
    let reverse_path = envelope.reverse_path.to_string();
    match found {
        Ok(Ok(Found::Sealed(opened, message_id))) => accept(&site, opened, message_id, bytes).await,
        Ok(Ok(Found::Bounce(bounce))) => {
            if let Err(failure) = note(&site, &envelope, &bounce, &message).await {
                return defer(&site, &reverse_path, bytes, &failure, later(&failure));
            }
            site.counters.mail(Mail::Bounce, bytes);
            Reply::new(250, Enhanced(2, 0, 0), "noted")
        }
        Ok(Err(refusal)) => {
            if let Err(failure) = keep(&site, &reverse_path, &refusal.to_string(), &message).await {
                return defer(&site, &reverse_path, bytes, &failure, later(&failure));
            }
            site.counters.mail(Mail::Refused, bytes);
            warn!(event = "message-refused", reverse_path, bytes, reason = %refusal, "a message to the replication mailbox was refused");
            reply(&refusal)
        }
        Err(failure) => defer(&site, &reverse_path, bytes, &failure, local_error()),
    }
}

/// A report of delivery; what leads to nothing is kept. One that was overtaken is no riddle: copies of those would only
/// take the room of others.
async fn note(
    site: &Site,
    envelope: &InterceptedEnvelope,
    bounce: &Bounce,
    message: &[u8],
) -> Result<(), Failure> {
    let mailbox = envelope.mailbox.as_str();
    let reason = match hint(site, envelope, bounce) {
        Ok(hint) => match site.replicator.hear(hint).await? {
            Outcome::Taken => return Ok(()),
            Outcome::Repeated => {
                info!(event = "bounce-overtaken", mailbox, "a report about mail that was heard since");
                return Ok(());
            }
            Outcome::Refused(refusal) => refusal.to_string(),
        },
        Err(reason) => reason.to_owned(),
    };
    keep(site, &envelope.reverse_path.to_string(), &reason, message).await?;
    warn!(event = "bounce-ignored", mailbox, reason, "a report led to nothing");
    Ok(())
}

/// The operator can look at what took no effect. The session waits for the copy: mail which nobody asked for does not
/// pile up in memory, and what could not be kept is not refused for good.
async fn keep(site: &Site, from: &str, reason: &str, message: &[u8]) -> Result<(), Failure> {
    let most = copy_bytes_max(site.config().replication.timing.quarantine_bytes_max);
    let mail = message[..message.len().min(most)].to_vec();
    let (from, reason) = (from.to_owned(), reason.to_owned());
    let refused = Input::Refused { from, reason, mail, bytes: message.len() as u64 };
    site.replicator.hear(refused).await.map(drop)
}

/// Trouble of ours with a message that is not opened.
fn defer(site: &Site, reverse_path: &str, bytes: usize, failure: &dyn Display, reply: Reply) -> Reply {
    warn!(event = "message-deferred", reverse_path, bytes, %failure, "the sender keeps the message");
    site.counters.mail(Mail::Deferred, bytes);
    reply
}

/// The answer to a message that the store did not take.
fn later(failure: &Failure) -> Reply {
    match failure {
        Failure::Store(StoreError::Full(_)) => {
            Reply::new(452, Enhanced(4, 3, 1), "no room on the disk; try again later")
        }
        Failure::Store(_) | Failure::Stopping => local_error(),
    }
}

fn local_error() -> Reply {
    Reply::new(451, Enhanced(4, 3, 0), "local error; try again later")
}

fn find(site: &Site, null_reverse_path: bool, message: &[u8]) -> Result<Found, Refusal> {
    if null_reverse_path && let Some(bounce) = bounce::parse(message) {
        return Ok(Found::Bounce(bounce));
    }
    let attachment = mime::extract(message).map_err(|error| error.refusal())?;
    let config = site.config();
    let opened = open(&config, &site.key.load(), &attachment.sealed, Timestamp::now());
    opened.map(|opened| Found::Sealed(opened, attachment.message_id)).map_err(|error| error.refusal())
}

/// Opens a message of a site that we exchange mail with. What the key of a former card signed may be under way for a
/// while after that was replaced.
pub fn open(config: &Config, key: &SiteKey, sealed: &[u8], now: Timestamp) -> Result<Opened, OpenError> {
    // The present card first, then the former ones, newest first.
    let card = |name: &str, former: usize| {
        let partner = config.partner(name).filter(|partner| partner.exchange)?;
        let before = partner.former.iter().rev().filter(|former| now < former.until);
        [&partner.card].into_iter().chain(before.map(|former| &former.card)).nth(former).cloned()
    };
    let mut opened = seal::open(key, &config.site.name, |name| card(name, 0), sealed);
    let mut former = 1;
    while let Err(OpenError::Forged(site)) = &opened {
        if card(site, former).is_none() {
            break;
        }
        let again = seal::open(key, &config.site.name, |name| card(name, former), sealed);
        former += 1;
        opened = again;
    }
    opened
}

async fn accept(site: &Site, opened: Opened, message_id: Option<String>, bytes: usize) -> Reply {
    let Opened { header, payload } = opened;
    let (from, seq) = (header.from, header.seq);
    let header = Header { seq, time: header.time, message_id };
    match site.replicator.received(from.clone(), header, payload).await {
        Ok(Outcome::Taken) => {
            site.counters.mail(Mail::Taken, bytes);
            info!(event = "message-taken", site = from, seq, bytes, "a replication message was taken");
            Reply::new(250, Enhanced(2, 0, 0), "taken")
        }
        Ok(Outcome::Repeated) => {
            site.counters.mail(Mail::Repeated, bytes);
            info!(
                event = "message-repeated",
                site = from,
                seq,
                bytes,
                "a message that was seen before: no effect"
            );
            Reply::new(250, Enhanced(2, 0, 0), "seen before")
        }
        Ok(Outcome::Refused(refusal)) => {
            site.counters.mail(Mail::Refused, bytes);
            warn!(event = "message-refused", site = from, seq, bytes, reason = %refusal, "a message took no effect");
            Reply::new(554, Enhanced(5, 7, 1), &refusal.to_string())
        }
        Err(failure) => {
            warn!(
                event = "message-deferred",
                site = from,
                seq,
                bytes,
                %failure,
                "the sender keeps the message"
            );
            site.counters.mail(Mail::Deferred, bytes);
            later(&failure)
        }
    }
}

/// What a report of delivery says of our mail, or why it leads to nothing. It is taken in any case, so that it never
/// bounces itself.
fn hint(site: &Site, envelope: &InterceptedEnvelope, bounce: &Bounce) -> Result<Input, &'static str> {
    let config = site.config();
    let mailbox = envelope.mailbox.as_str();
    let own = config.site.mailboxes();
    let returned_to = own.filter_map(|own| token::split_return_path(own, mailbox)).flatten().next();
    let tokens = returned_to.into_iter().chain(bounce.tokens.iter().map(String::as_str));
    let sites = || config.partners.iter().map(|partner| partner.card.name());
    let key = site.key.load();
    let sent = tokens.filter_map(|token| key.check_token(token, sites())).next();
    let (Some((to, mail)), Some(recipient)) = (sent, bounce.worst()) else {
        return Err("a report about nothing that this site sent");
    };
    let status = match (recipient.action, recipient.cause()) {
        (Action::Delivered, _) => return Err("a report of success, which nobody asked for"),
        (Action::Delayed, _) => BounceStatus::Delayed,
        (Action::Failed, Cause::TooLarge) => BounceStatus::TooLarge,
        (Action::Failed, _) => BounceStatus::Failed,
    };
    Ok(Input::Bounced {
        to: to.to_owned(),
        mail,
        status,
        enhanced: recipient.status.map_or_else(String::new, |status| status.to_string()),
        text: recipient.diagnostic.clone().unwrap_or_default(),
    })
}

fn reply(refusal: &Refusal) -> Reply {
    Reply::new(refusal.code, refusal.enhanced.parse::<Enhanced>().ok(), &refusal.text)
}
