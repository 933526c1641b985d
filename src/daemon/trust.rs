//! Cards that sites tell: whether they succeed the pinned ones, and what becomes of sites that are introduced.
//!
//! PROMISES
//!   A pinned card is replaced only by one that its own key signed or endorsed, with a later serial, whoever brings
//!   it; all else in the site's file stays. What becomes of the former card: [`crate::message::pinned`].
//!   A site that a partner introduces becomes known as a master of naming contexts, by policy or by the operator's
//!   word; no mail goes to it and none is taken from it, and no route changes.
//!
//! LIMITS
//!   [`OFFERED_MAX`] cards wait for the operator.
//!
//! FAILURE
//!   What is refused is logged with the reason. A file that cannot be written is tried again when the card is told
//!   again, which it is until we go by it.

use std::path::PathBuf;
use std::sync::Arc;
use std::{fs, io};

use jiff::Timestamp;
use thiserror::Error;
use tokio::sync::mpsc::UnboundedReceiver;
use tracing::{error, info, warn};

use super::Daemon;
use crate::config::partner::{self, Policy};
use crate::config::{Config, PartnerConfig};
use crate::message::card::{Card, CardError, CardFields};
use crate::message::introduction::{self, Introduction, IntroductionError};
use crate::message::keys::SiteKey;
use crate::message::own::{self, OwnCardError, OwnCards};
use crate::message::pinned::{Pinned, Word};
use crate::replication::engine::{EngineConfig, Succession};

/// Cards that may wait for the operator.
pub const OFFERED_MAX: usize = 64;

/// What a connected site told.
pub enum Told {
    /// Its own cards, oldest first.
    Cards {
        site: String,
        cards: Vec<String>,
    },
    Introductions {
        by: String,
        introductions: Vec<String>,
    },
}

/// Why a card was not pinned.
#[derive(Debug, Error)]
pub enum TrustError {
    #[error(transparent)]
    Card(#[from] CardError),
    #[error(transparent)]
    Introduction(#[from] IntroductionError),
    #[error("{0}")]
    Clash(String),
    #[error("{by} speaks in the name of {introducer}")]
    NotItsWord { by: String, introducer: String },
    #[error("{OFFERED_MAX} cards wait for the operator already")]
    TooMany,
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
}

/// This site's cards, with a new one if what the last one says is not so any more.
pub fn own_cards(config: &Config, key: &SiteKey) -> Result<OwnCards, OwnCardError> {
    let fields = CardFields {
        name: config.site.name.clone(),
        organization: config.site.organization.clone(),
        mailbox: config.site.mailbox.clone(),
        contexts: config.site.contexts.iter().map(ToString::to_string).collect(),
        address_spaces: Vec::new(),
        part_bytes_max: config.relay.limits.replication_message_bytes_max as u64 / 2,
        serial: 0,
        issued: Timestamp::UNIX_EPOCH,
    };
    own::settle(&config.site.cards(), key, &fields, Timestamp::now())
}

/// What the engine tells of us, and of the sites behind us.
pub fn told_by_us(engine: &mut EngineConfig, config: &Config, key: &SiteKey, own: &OwnCards) {
    let mut introductions = Vec::new();
    for partner in &config.partners {
        let former = partner.former.iter().map(|former| (&former.card, &former.text));
        for (card, text) in former.chain([(&partner.card, &partner.card_text)]) {
            // The card's own time, so that the statement stays the same.
            match Introduction::issue(key, &config.site.name, card.fields.issued, text) {
                Ok(statement) => introductions.push((card.name().to_owned(), statement)),
                Err(error) => {
                    warn!(event = "introduction-failed", site = card.name(), %error, "not introduced")
                }
            }
        }
    }
    engine.card = own.text().to_owned();
    engine.succession = Succession {
        serial: own.current().fields.serial,
        former_cards: own.former_texts().map(str::to_owned).collect(),
        former_keys: key.former_signing(),
        introductions,
        takes_bytes_max: own.current().fields.part_bytes_max,
    };
}

/// Considers what sites tell, one after the other, until the replicator is gone.
pub async fn run(daemon: Arc<Daemon>, mut told: UnboundedReceiver<Told>) {
    while let Some(told) = told.recv().await {
        let daemon = daemon.clone();
        let considered = tokio::task::spawn_blocking(move || consider(&daemon, told)).await;
        if let Err(failure) = considered {
            error!(event = "card-failed", %failure, "a card could not be looked at");
        }
    }
}

fn consider(daemon: &Daemon, told: Told) {
    match told {
        Told::Cards { site, cards } => {
            let config = daemon.config();
            let Some(partner) = config.partner(&site) else {
                return;
            };
            let cards: Vec<&str> = cards.iter().map(String::as_str).collect();
            if let Err(error) = succeed(daemon, &config, partner, &cards, Word::Own) {
                warn!(event = "card-refused", site, %error, "the site told a card that does not count; the pinned one holds");
            }
        }
        Told::Introductions { by, introductions } => {
            let refused = |error: TrustError| {
                warn!(event = "introduction-refused", by, %error, "a site that was introduced is not taken");
            };
            let mut sound = Vec::new();
            for text in introductions {
                match read(&daemon.config(), &by, &text) {
                    Ok(Some(introduction)) => sound.push(introduction),
                    Ok(None) => return,
                    Err(error) => refused(error),
                }
            }
            for cards in introduction::by_site(sound).into_values() {
                let cards: Vec<&str> = cards.values().map(String::as_str).collect();
                introduced(daemon, &by, &cards).unwrap_or_else(refused);
            }
        }
    }
}

/// A site that is known tells cards, or has them told.
fn succeed(
    daemon: &Daemon,
    config: &Config,
    partner: &PartnerConfig,
    cards: &[&str],
    word: Word,
) -> Result<(), TrustError> {
    let known = partner.pinned();
    let pinned = told(config, partner, cards, word)?;
    let site = pinned.card.name();
    if pinned == known {
        // A hub that is behind tells older cards of many sites, each time.
        let older = |card: Card| card.fields.serial < known.card.fields.serial;
        if word == Word::Own && cards.last().is_some_and(|card| Card::parse_verified(card).is_ok_and(older)) {
            info!(
                event = "card-older",
                site, "the site told a card that is older than the pinned one, which holds"
            );
        }
        return Ok(());
    }
    if pinned.card == known.card {
        pin(config, partner, &pinned)?;
        let cards = pinned.former.len();
        info!(event = "former-cards-kept", site, cards, "others can get to its present card by these");
        reload(daemon);
        return Ok(());
    }
    match partner.successors {
        Policy::Off => {
            info!(event = "card-told", site, "the site has a new card; it is not taken, by policy")
        }
        Policy::Ask => offer(config, &pinned.card, cards, site)?,
        Policy::Accept => {
            pin(config, partner, &pinned)?;
            let until = replaced_until(&known, &pinned);
            let (fingerprint, mailbox) = (pinned.card.fingerprint(), &pinned.card.fields.mailbox);
            info!(
                event = "card-pinned",
                site,
                fingerprint,
                mailbox,
                serial = pinned.card.fields.serial,
                until,
                "the site's new card is pinned; it was signed by the known key, which counts until then"
            );
            reload(daemon);
        }
    }
    Ok(())
}

/// What is to be pinned of a site after it, or others, told cards of it, oldest first.
pub fn told(
    config: &Config,
    partner: &PartnerConfig,
    cards: &[&str],
    word: Word,
) -> Result<Pinned, CardError> {
    let now = Timestamp::now().round(jiff::Unit::Second).unwrap_or_else(|_| Timestamp::now());
    partner.pinned().told(cards, word, now, config.replication.former_keys)
}

/// Until when the key of what was known counts, if it was replaced.
pub fn replaced_until(known: &Pinned, pinned: &Pinned) -> Option<String> {
    let replaced = pinned.former.iter().find(|former| former.card.public == known.card.public);
    replaced.map(|former| former.until.to_string())
}

fn reload(daemon: &Daemon) {
    // What keeps it from being in force is in the log.
    let _ = daemon.reload();
}

/// A site of which something else is to be pinned.
#[derive(Clone, Debug)]
pub struct Successor {
    /// The site as it will be known.
    pub partner: PartnerConfig,
    /// The file that says so.
    text: String,
}

impl Successor {
    /// Writes the file.
    pub fn pin(&self) -> Result<(), TrustError> {
        let failed = |source| TrustError::File { path: self.partner.file.clone(), source };
        own::write(&self.partner.file, &self.text).map_err(failed)
    }
}

/// Writes what is pinned of a site into its file, if it can stand beside the others.
pub fn pin(config: &Config, partner: &PartnerConfig, pinned: &Pinned) -> Result<(), TrustError> {
    successor(config, partner, pinned)?.pin()
}

/// The cards of a site came in a file: the one to pin before what it signed can be taken, if policy lets it.
pub fn by_file(config: &Config, cards: &str) -> Result<Option<Successor>, TrustError> {
    let cards: Vec<&str> = own::each(cards).collect();
    let Some(text) = cards.last() else { return Ok(None) };
    let card = Card::parse_verified(text)?;
    let partner = config.partner(card.name());
    let Some(partner) = partner.filter(|partner| partner.exchange) else { return Ok(None) };
    let pinned = told(config, partner, &cards, Word::Others)?;
    if pinned.card == partner.card {
        return Ok(None);
    }
    match partner.successors {
        Policy::Accept => successor(config, partner, &pinned).map(Some),
        Policy::Ask => offer(config, &pinned.card, &cards, card.name()).map(|()| None),
        Policy::Off => Ok(None),
    }
}

fn successor(config: &Config, partner: &PartnerConfig, pinned: &Pinned) -> Result<Successor, TrustError> {
    let failed = |source| TrustError::File { path: partner.file.clone(), source };
    let text = fs::read_to_string(&partner.file).map_err(failed)?;
    let unread = || TrustError::Clash(format!("{} cannot be read", partner.file.display()));
    let after = partner::print_pinned(&text, pinned).ok_or_else(unread)?;
    let parsed =
        partner::parse(&partner.file, &after).map_err(|problems| TrustError::Clash(problems.to_string()))?;
    let mut others = config.partners.clone();
    others.retain(|other| other.file != partner.file);
    sound(config, others, parsed.clone())?;
    Ok(Successor { partner: parsed, text: after })
}

/// Whether this site can stand beside the others.
fn sound(config: &Config, mut others: Vec<PartnerConfig>, new: PartnerConfig) -> Result<(), TrustError> {
    others.push(new);
    match partner::clashes(&others, Some(&config.site)).first() {
        None => Ok(()),
        Some(problem) => Err(TrustError::Clash(problem.message.clone())),
    }
}

/// A partner's word for another site. None: it is no partner any more.
fn read(config: &Config, by: &str, text: &str) -> Result<Option<Introduction>, TrustError> {
    let Some(introducer) = config.partner(by) else {
        return Ok(None);
    };
    let read = Introduction::parse_verified(text, |name| (name == by).then(|| introducer.card.clone()))?;
    if read.introducer != by {
        return Err(TrustError::NotItsWord { by: by.to_owned(), introducer: read.introducer });
    }
    if read.card.name() == config.site.name {
        return Err(TrustError::Clash("it is this site's own name".to_owned()));
    }
    Ok(Some(read))
}

/// Cards of one site were introduced, oldest first; each is sound by itself.
fn introduced(daemon: &Daemon, by: &str, cards: &[&str]) -> Result<(), TrustError> {
    let config = daemon.config();
    let Some(introducer) = config.partner(by) else { return Ok(()) };
    let card = Card::parse_verified(cards.last().unwrap_or(&""))?;
    if let Some(known) = config.partner(card.name()) {
        return succeed(daemon, &config, known, cards, Word::Others);
    }
    match introducer.introductions {
        Policy::Off => Ok(()),
        Policy::Ask => offer(&config, &card, cards, by),
        Policy::Accept => {
            let card = accept(&config, cards, by)?;
            info!(
                event = "site-introduced",
                site = card.name(),
                by,
                fingerprint = card.fingerprint(),
                "known as a master from now on; no mail goes to it"
            );
            reload(daemon);
            Ok(())
        }
    }
}

/// Writes the file of a site that was introduced by these cards, oldest first; the last is pinned, the others are the way
/// to it.
pub fn accept(config: &Config, cards: &[&str], by: &str) -> Result<Card, TrustError> {
    let last = *cards.last().unwrap_or(&"");
    let pinned = Pinned::new(Card::parse_verified(last)?, last.to_owned());
    let pinned = pinned.told(cards, Word::Others, Timestamp::now(), config.replication.former_keys)?;
    let path = config.site.sites.join(format!("{}.toml", pinned.card.name()));
    let unread = || TrustError::Clash(format!("{} cannot be written", path.display()));
    let text = partner::print_pinned(&partner::print_introduced(last, by), &pinned).ok_or_else(unread)?;
    let new = partner::parse(&path, &text).map_err(|problems| TrustError::Clash(problems.to_string()))?;
    sound(config, config.partners.clone(), new)?;
    own::write(&path, &text).map_err(|source| TrustError::File { path, source })?;
    Ok(pinned.card)
}

/// A card waits for the operator, with those by which one gets there.
fn offer(config: &Config, card: &Card, cards: &[&str], by: &str) -> Result<(), TrustError> {
    let directory = config.site.offered();
    let path = directory.join(format!("{}.card", card.name()));
    let text = format!("# told by {by}\n{}", own::join(cards));
    if fs::read_to_string(&path).is_ok_and(|known| known == text) {
        return Ok(());
    }
    let failed = |source| TrustError::File { path: path.clone(), source };
    fs::create_dir_all(&directory).map_err(failed)?;
    if !path.exists() && fs::read_dir(&directory).map_err(failed)?.count() >= OFFERED_MAX {
        return Err(TrustError::TooMany);
    }
    own::write(&path, &text).map_err(failed)?;
    info!(
        event = "card-offered",
        site = card.name(),
        by,
        fingerprint = card.fingerprint(),
        "a card waits for the operator: `bridgehead site list`, `bridgehead site approve`"
    );
    Ok(())
}

/// A card that waits for the operator.
pub struct Offered {
    pub card: Card,
    /// It and those before it, for [`own::each`].
    pub cards: String,
    pub by: String,
    pub file: PathBuf,
}

/// Every card that waits, by name.
pub fn offered(config: &Config) -> io::Result<Vec<Offered>> {
    let listing = match fs::read_dir(config.site.offered()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing?,
    };
    let mut found = Vec::new();
    for file in listing {
        let file = file?.path();
        let told = fs::read_to_string(&file)?;
        let (first, cards) = told.split_once('\n').unwrap_or_default();
        let card = own::each(cards).last().map(Card::parse_verified);
        if let (Some(Ok(card)), Some(by)) = (card, first.strip_prefix("# told by ")) {
            found.push(Offered { card, cards: cards.to_owned(), by: by.to_owned(), file });
        }
    }
    found.sort_by(|a, b| a.card.name().cmp(b.card.name()));
    Ok(found)
}
