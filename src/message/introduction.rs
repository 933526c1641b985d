//! Introductions: a partner's signed statement that carries another site's card.
//!
//! PROMISES
//!   An [`Introduction`] exists only after the introducer's signature was verified under its pinned card, and the card
//!   inside under the key that it names. It makes nobody a partner: that is for local policy or the operator, who still
//!   may compare fingerprints.
//!
//! FORMAT
//!   A signed statement ([`super::statement`]): `format = 1`, `introducer`, `issued`, and `card`, an array of the
//!   card's lines. The card is carried unchanged, its own signature included, so that it can be pinned and passed on.
//!
//! FAILURE
//!   [`IntroductionError`] says whether the introduction or the card inside is at fault.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use thiserror::Error;

use super::card::{Card, CardError};
use super::keys::SiteKey;
use super::name;
use super::statement::{self, Statement, StatementError};

const KIND: &[u8] = b"bridgehead introduction 1\0";

/// A partner's word for another site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// The partner that introduces.
    pub introducer: String,
    pub issued: Timestamp,
    /// The site introduced.
    pub card: Card,
    /// Its card as text, for the file in `sites.d`.
    pub card_text: String,
}

/// The fault of whoever issued or carried the introduction.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IntroductionError {
    #[error("the introduction is not sound: {0}")]
    Statement(#[from] StatementError),
    #[error("the introduction has format {0}; this program knows format 1 and is too old for it")]
    Format(i64),
    #[error("the introduction is by site `{0}`, which is not known here")]
    UnknownIntroducer(String),
    #[error("the introduction's time is no RFC 3339 time")]
    Issued,
    #[error("site `{0}` introduces itself")]
    Itself(String),
    #[error("in an introduction: {0}")]
    Card(#[from] CardError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spelled {
    format: i64,
    introducer: String,
    issued: String,
    card: Vec<String>,
}

impl Introduction {
    /// Introduces the site of `card_text`, in the name of the site `introducer`, whose key this is.
    pub fn issue(
        key: &SiteKey,
        introducer: &str,
        issued: Timestamp,
        card_text: &str,
    ) -> Result<String, IntroductionError> {
        let card = Card::parse_verified(card_text)?;
        let quote = |text: &str| toml::Value::from(text).to_string();
        // One line, one string: no line of the card can pass for one of the introduction.
        let lines: String =
            card_text.lines().map(|line| format!("  {},\n", quote(line.trim_end()))).collect();
        let introducer = quote(introducer);
        let text = format!(
            "# bridgehead introduction of site {}\n\
             format = 1\nintroducer = {introducer}\nissued = \"{issued}\"\ncard = [\n{lines}]\n",
            card.name()
        );
        let text = statement::sign(key, KIND, &text);
        Statement::parse(&text)?;
        Ok(text)
    }

    /// Reads an introduction; `lookup` gives the pinned card of a site.
    pub fn parse_verified(
        text: &str,
        lookup: impl Fn(&str) -> Option<Card>,
    ) -> Result<Introduction, IntroductionError> {
        let statement = Statement::parse(text)?;
        let spelled: Spelled = toml::from_str(statement.text())
            .map_err(|error| StatementError::Toml(name::shown_lines(&error.to_string())))?;
        if spelled.format != 1 {
            return Err(IntroductionError::Format(spelled.format));
        }
        let introducer = lookup(&spelled.introducer).filter(|card| card.name() == spelled.introducer);
        let introducer = introducer
            .ok_or_else(|| IntroductionError::UnknownIntroducer(name::shown(&spelled.introducer)))?;
        statement.verify(&introducer.public.signing, KIND)?;
        let issued = spelled.issued.parse().map_err(|_| IntroductionError::Issued)?;
        let card_text = spelled.card.join("\n") + "\n";
        let card = Card::parse_verified(&card_text)?;
        if card.name() == introducer.name() {
            return Err(IntroductionError::Itself(card.fields.name));
        }
        Ok(Introduction { introducer: spelled.introducer, issued, card, card_text })
    }
}

/// The cards that were introduced of each site, by serial: what is told of one site belongs together, the cards and the way
/// from one to the next, and a message tells it in any order.
pub fn by_site(
    introductions: impl IntoIterator<Item = Introduction>,
) -> BTreeMap<String, BTreeMap<u64, String>> {
    let mut sites: BTreeMap<String, BTreeMap<u64, String>> = BTreeMap::new();
    for Introduction { card, card_text, .. } in introductions {
        sites.entry(card.fields.name).or_default().insert(card.fields.serial, card_text);
    }
    sites
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::card::tests::{fields, key, site};

    fn issued() -> Timestamp {
        "2026-11-22T15:00:00Z".parse().unwrap()
    }

    /// Hub introduces gamma.
    fn introduction() -> String {
        let gamma = Card::issue(&key(3), &fields("gamma")).unwrap();
        Introduction::issue(&key(1), "hub", issued(), &gamma).unwrap()
    }

    fn parse(text: &str) -> Result<Introduction, IntroductionError> {
        let hub = site("hub", 1).1;
        Introduction::parse_verified(text, |name| (name == "hub").then(|| hub.clone()))
    }

    #[test]
    fn an_introduction_carries_a_card_unchanged() {
        let read = parse(&introduction().replace('\n', " \r\n")).unwrap();
        assert_eq!((read.introducer.as_str(), read.issued), ("hub", issued()));
        assert_eq!(read.card_text, Card::issue(&key(3), &fields("gamma")).unwrap());
        assert_eq!(read.card, site("gamma", 3).1);
    }

    #[test]
    fn only_a_partner_introduces_and_only_others() {
        let gamma = Card::issue(&key(3), &fields("gamma")).unwrap();
        let issue = |seed, introducer, card: &str| {
            Introduction::issue(&key(seed), introducer, issued(), card).unwrap()
        };
        let bad_signature = Err(IntroductionError::Statement(StatementError::BadSignature));
        assert_eq!(parse(&issue(3, "hub", &gamma)), bad_signature);
        assert_eq!(
            parse(&issue(3, "gamma", &gamma)),
            Err(IntroductionError::UnknownIntroducer("gamma".into()))
        );
        let hub = Card::issue(&key(1), &fields("hub")).unwrap();
        assert_eq!(parse(&issue(1, "hub", &hub)), Err(IntroductionError::Itself("hub".into())));
        assert_eq!(parse(&introduction().replace("serial = 1", "serial = 2")), bad_signature);
        // A card is no introduction and an introduction no card.
        assert!(matches!(parse(&gamma), Err(IntroductionError::Statement(StatementError::Toml(_)))));
        assert!(Card::parse_verified(&introduction()).is_err());
    }

    #[test]
    fn a_card_that_the_introducer_altered_is_refused() {
        let gamma = Card::issue(&key(3), &fields("gamma")).unwrap();
        let altered = gamma.replace("repl@gamma", "thief@gamma");
        assert!(matches!(
            Introduction::issue(&key(1), "hub", issued(), &altered),
            Err(IntroductionError::Card(CardError::Statement(StatementError::BadSignature)))
        ));
        let forged = introduction().replace("repl@gamma", "thief@gamma");
        let body = Statement::parse(&forged).unwrap().text().to_owned();
        let signed = statement::sign(&key(1), KIND, &body);
        assert!(matches!(parse(&signed), Err(IntroductionError::Card(_))));
    }
}
