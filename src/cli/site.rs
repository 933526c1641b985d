//! `bridgehead card`, `bridgehead site add`, `bridgehead check`: who we are, whom we know, whether it is sound.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use super::failure::{CANNOT_CREATE, CONFIG, DATA, Failure, IO, NO_PERMISSION, OK, OrFail};
use super::init::write_new;
use super::operator;
use crate::config::{self, Config, Problems, partner};
use crate::control::conversation::{self, Daemon};
use crate::control::operation::Operation;
use crate::daemon::trust;
use crate::message::card::{Card, CardError};
use crate::message::keyfile::{self, KeyFileError};
use crate::message::keys::SiteKey;
use crate::message::own::OwnCardError;
use crate::message::pinned::Word;
use crate::message::statement::STATEMENT_BYTES_MAX;

/// Reads the configuration, or says everything that is wrong with it.
pub fn load(file: &Path) -> Result<Config, Failure> {
    config::load(file).map_err(refused)
}

pub fn refused(problems: Problems) -> Failure {
    eprintln!("{problems}");
    let count = problems.0.len();
    Failure::new(
        CONFIG,
        format!("the configuration has {count} problem{}", if count == 1 { "" } else { "s" }),
    )
}

pub fn read_key(config: &Config) -> Result<SiteKey, Failure> {
    keyfile::read(&config.site.key).map_err(|error| {
        let status = match &error {
            KeyFileError::Mode { .. } => NO_PERMISSION,
            KeyFileError::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                NO_PERMISSION
            }
            KeyFileError::Read { .. } | KeyFileError::Write { .. } => IO,
            _ => CONFIG,
        };
        Failure::new(status, error)
    })
}

/// This site's card; a new one if what it says changed.
pub fn issue(config: &Config, key: &SiteKey) -> Result<String, Failure> {
    let own = trust::own_cards(config, key).map_err(|error| {
        let status = if matches!(error, OwnCardError::File { .. }) { IO } else { CONFIG };
        Failure::new(status, format!("the card: {error}"))
    })?;
    Ok(own.text().to_owned())
}

pub fn card(file: &Path) -> Result<u8, Failure> {
    let config = load(file)?;
    let key = read_key(&config)?;
    print!("{}", issue(&config, &key)?);
    // Beside the card, never in it: a forged card would show the fingerprint that fits it.
    eprintln!(
        "This site's fingerprint is {}: tell it to the other administrator.",
        key.public().fingerprint()
    );
    Ok(OK)
}

/// The daemon of this site; None when it does not run.
pub fn daemon(config: &Config) -> Result<Option<Daemon>, Failure> {
    let socket = config.site.control_socket();
    conversation::connect(&socket).map_err(|error| {
        let denied = error.kind() == io::ErrorKind::PermissionDenied;
        Failure::new(if denied { NO_PERMISSION } else { IO }, format!("{}: {error}", socket.display()))
    })
}

pub fn check(file: &Path) -> Result<u8, Failure> {
    let config = load(file)?;
    read_key(&config)?;
    println!(
        "{}: sound. Site {}, {} naming context(s), {} connected site(s), {} listener(s), {} route(s).",
        file.display(),
        config.site.name,
        config.site.contexts.len(),
        config.partners.len(),
        config.relay.listeners.len(),
        config.relay.routes.len(),
    );
    Ok(OK)
}

pub fn add(card_file: &Path, file: &Path) -> Result<u8, Failure> {
    let config = load(file)?;
    let text = read_card(card_file)?;
    if let Some(status) = succeed(&config, &text)? {
        return Ok(status);
    }
    let card = add_card(&config, &text)?;
    println!("Site {} is connected; its file is {}.", card.name(), site_file(&config, &card).display());
    println!("Its key's fingerprint is {}: compare it with the other administrator's.", card.fingerprint());
    println!(
        "It masters {}. Its replication mailbox is {}.",
        card.fields.contexts.join(" and "),
        card.fields.mailbox
    );
    Ok(operator::ask(&config, &Operation::Reload)?.unwrap_or(OK))
}

/// A card of a site that is connected takes the place of the pinned one, if it may. None: the site is new.
fn succeed(config: &Config, text: &str) -> Result<Option<u8>, Failure> {
    let card = Card::parse_verified(text).or_fail(DATA, || "the card is refused".to_owned())?;
    let name = card.name();
    if name == config.site.name {
        let message =
            format!("this is the card of {name}, this site itself; give it to the other site and add theirs");
        return Err(Failure::new(DATA, message));
    }
    let Some(known) = config.partner(name) else {
        return Ok(None);
    };
    if known.card == card {
        println!("Site {name} is connected already, with this very card.");
        return Ok(Some(OK));
    }
    if let Err(error) = known.card.succeeded_by(text) {
        let advice = match &error {
            CardError::NotEndorsed => format!(
                "ask the other administrator by telephone whether the fingerprint is {}; if it is, `bridgehead site detach {name}`, then add the card",
                card.fingerprint()
            ),
            _ => "ask the other administrator for the present card".to_owned(),
        };
        return Err(Failure::new(
            CANNOT_CREATE,
            format!("{name} is connected, and the card is refused: {error}; {advice}"),
        ));
    }
    let refused = || "the card is refused".to_owned();
    let pinned = trust::told(config, known, &[text], Word::Others).or_fail(DATA, refused)?;
    trust::pin(config, known, &pinned).or_fail(DATA, refused)?;
    println!("The new card of {name} is pinned: it is signed by the key that was known.");
    if let Some(until) = trust::replaced_until(&known.pinned(), &pinned) {
        println!("Its key's fingerprint is {} now; the former key counts until {until}.", card.fingerprint());
    }
    println!("Its replication mailbox is {}.", card.fields.mailbox);
    Ok(Some(operator::ask(config, &Operation::Reload)?.unwrap_or(OK)))
}

/// Verifies a card and writes the connected site's file. The whole configuration is checked with it.
pub fn add_card(config: &Config, text: &str) -> Result<Card, Failure> {
    let card = Card::parse_verified(text).or_fail(DATA, || "the card is refused".to_owned())?;
    let path = site_file(config, &card);
    if path.exists() {
        let hint = "remove that file first if its key was to change";
        return Err(Failure::new(
            CANNOT_CREATE,
            format!("{} exists; not overwritten ({hint})", path.display()),
        ));
    }
    write_new(&path, &partner::print(text))?;
    if let Err(problems) = partner::load_all(&config.site.sites, Some(&config.site)) {
        fs::remove_file(&path).or_fail(IO, || path.display().to_string())?;
        return Err(refused(problems));
    }
    Ok(card)
}

fn site_file(config: &Config, card: &Card) -> std::path::PathBuf {
    config.site.sites.join(format!("{}.toml", card.name()))
}

fn read_card(file: &Path) -> Result<String, Failure> {
    let bound = STATEMENT_BYTES_MAX as u64 + 1;
    let mut text = String::new();
    let read = if file == Path::new("-") {
        io::stdin().take(bound).read_to_string(&mut text)
    } else {
        fs::File::open(file).and_then(|file| file.take(bound).read_to_string(&mut text))
    };
    read.or_fail(DATA, || file.display().to_string())?;
    Ok(text)
}
