//! `bridgehead key roll`, `bridgehead card move`, `bridgehead site list|approve|reject`: keys and addresses that change,
//! and sites that partners tell of.
//!
//! PROMISES
//!   The partners' operators have nothing to do: what changes here is announced, signed by the key that they know.
//!   The former keys and the former mailbox go on to be served, for mail that is under way.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

use jiff::Timestamp;

use super::directory;
use super::failure::{CONFIG, DATA, Failure, IO, OK, OrFail, TRY_AGAIN, UNAVAILABLE};
use super::operator::ask;
use super::site::{self, read_key};
use crate::config::{self, Config};
use crate::control::operation::Operation;
use crate::daemon::trust::{self, Offered};
use crate::message::pinned::Word;
use crate::message::{keyfile, name, own, random};
use crate::replication::peer::Peer;

/// Renews this site's keys.
pub fn roll_key(file: &Path) -> Result<u8, Failure> {
    let config = site::load(file)?;
    let renewed = read_key(&config)?.renew(&mut random::system());
    keyfile::replace(&config.site.key, &renewed).or_fail(IO, || "the key".to_owned())?;
    println!("The keys are renewed. The new fingerprint is {}.", renewed.public().fingerprint());
    println!(
        "Connected sites take it by themselves, for the former key endorses it; keep {} safe.",
        config.site.key.display()
    );
    announce(&config, file)
}

/// Has the other sites send to another mailbox.
pub fn move_mailbox(mailbox: &str, file: &Path) -> Result<u8, Failure> {
    let before = site::load(file)?;
    name::split_mailbox(mailbox).or_fail(CONFIG, || "the new mailbox".to_owned())?;
    if before.site.mailbox == mailbox {
        return Err(Failure::new(UNAVAILABLE, format!("{mailbox} is the mailbox already")));
    }
    let text = fs::read_to_string(file).or_fail(IO, || file.display().to_string())?;
    let after = config::with_mailbox(&text, mailbox)
        .ok_or_else(|| Failure::new(CONFIG, format!("{}: no `mailbox` in [site]", file.display())))?;
    config::parse(file, &after).map_err(site::refused)?;
    own::write(file, &after).or_fail(IO, || file.display().to_string())?;
    println!("The mailbox is {mailbox} from now on; connected sites are told.");
    println!(
        "Let your mail server hand over mail for both: {} is under `former_mailboxes` in {}. Remove it there once no\n\
         connected site sends to it any more.",
        before.site.mailbox,
        file.display()
    );
    announce(&before, file)
}

/// Puts what changed in force, or leaves it to the daemon's next start.
fn announce(before: &Config, file: &Path) -> Result<u8, Failure> {
    let after = site::load(file)?;
    trust::own_cards(&after, &read_key(&after)?).or_fail(IO, || "this site's card".to_owned())?;
    match ask(before, &Operation::Reload)? {
        Some(status) => Ok(status),
        None => {
            println!("The daemon does not run; it tells the other sites once it does.");
            Ok(OK)
        }
    }
}

/// Connected sites, sites that are known, and cards that wait for a word.
pub fn list(file: &Path) -> Result<u8, Failure> {
    let config = site::load(file)?;
    let paused = paused(&config)?;
    for partner in &config.partners {
        let card = &partner.card;
        let how = match card.fields.mailbox.as_str() {
            _ if !partner.exchange => "no mail is exchanged".to_owned(),
            mailbox if paused.contains(card.name()) => format!("{mailbox}, paused"),
            mailbox => mailbox.to_owned(),
        };
        println!("{}: {}; {how}; {}", card.name(), card.fields.contexts.join(" and "), card.fingerprint());
        for former in partner.former.iter().filter(|former| Timestamp::now() < former.until) {
            println!("    a former key counts until {}: {}", former.until, former.card.fingerprint());
        }
    }
    let waiting = waiting(&config)?;
    for offered in &waiting {
        let card = &offered.card;
        println!(
            "{} waits for `bridgehead site approve {}`: told by {}; {}; {}; {}",
            card.name(),
            card.name(),
            offered.by,
            card.fields.contexts.join(" and "),
            card.fields.mailbox,
            card.fingerprint()
        );
    }
    if config.partners.is_empty() && waiting.is_empty() {
        println!("no site is connected; `bridgehead site add` connects one");
    }
    Ok(OK)
}

/// The sites to which nothing is sent, by their files or by the operator's word.
fn paused(config: &Config) -> Result<HashSet<&str>, Failure> {
    let by_file = config.partners.iter().filter(|partner| partner.link.paused);
    let mut paused: HashSet<&str> = by_file.map(|partner| partner.card.name()).collect();
    if !directory::is_begun(config) {
        return Ok(paused);
    }
    directory::view(config, |read| {
        for name in config.partners.iter().map(|partner| partner.card.name()) {
            let peer = Peer::load(read, name).or_fail(TRY_AGAIN, || "the store".to_owned())?;
            if peer.is_some_and(|peer| peer.paused) {
                paused.insert(name);
            }
        }
        Ok(paused)
    })
}

fn waiting(config: &Config) -> Result<Vec<Offered>, Failure> {
    trust::offered(config).or_fail(IO, || config.site.offered().display().to_string())
}

/// The operator's word on a card that waits.
pub fn decide(name: &str, approve: bool, file: &Path) -> Result<u8, Failure> {
    let config = site::load(file)?;
    let offered = waiting(&config)?.into_iter().find(|offered| offered.card.name() == name);
    let none =
        || Failure::new(UNAVAILABLE, format!("no card of {name} waits; `bridgehead site list` shows them"));
    let offered = offered.ok_or_else(none)?;
    let refused = || format!("the card of {name} is refused");
    if approve {
        let cards: Vec<&str> = own::each(&offered.cards).collect();
        match config.partner(name) {
            Some(known) => {
                let pinned = trust::told(&config, known, &cards, Word::Others).or_fail(DATA, refused)?;
                trust::pin(&config, known, &pinned).or_fail(DATA, refused)?;
                println!("The new card of {name} is pinned.");
            }
            None => {
                trust::accept(&config, &cards, &offered.by).or_fail(DATA, refused)?;
                println!("{name} is known as the master of {}.", offered.card.fields.contexts.join(" and "));
                println!("No mail goes to it; `exchange = true` in its file would change that.");
            }
        }
    }
    match fs::remove_file(&offered.file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Failure::new(IO, format!("{}: {error}", offered.file.display())));
        }
        _ => {}
    }
    let reloaded = if approve { ask(&config, &Operation::Reload)? } else { None };
    Ok(reloaded.unwrap_or(OK))
}
