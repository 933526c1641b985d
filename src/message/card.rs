//! The site card: what a site tells the others about itself, signed by itself.
//!
//! PROMISES
//!   A [`Card`] exists only after its signature was verified against the key that it names, and every field is within
//!   its bounds. That the key belongs to whom it says is for the operator to check once, by the fingerprint; after that
//!   a new card counts only if the pinned key signed or endorsed it ([`Card::succeeded_by`]).
//!
//! FORMAT
//!   A signed statement ([`super::statement`]) of TOML, for people to read and to send by any channel. A card of the
//!   next format will say `format = 2` and be refused here by that line; within a format unknown keys are errors.
//!
//! FAILURE
//!   [`CardError`] says what to tell whoever sent the card.

use jiff::Timestamp;
use serde::Deserialize;
use thiserror::Error;

use super::keys::{PublicKeyError, SiteKey, SitePublic};
use super::name::{self, NameError};
use super::statement::{self, Statement, StatementError};
use crate::limits;

/// Naming contexts of one site.
pub const CONTEXTS_MAX: usize = 64;
/// Address spaces of one site.
pub const ADDRESS_SPACES_MAX: usize = 256;
/// Octets of any one text in a card.
pub const CARD_TEXT_BYTES_MAX: usize = 512;

const KIND: &[u8] = b"bridgehead site card 1\0";
const SUCCESSION: &[u8] = b"bridgehead succession 1\0";

/// What a site says about itself, still to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardFields {
    /// The site's name, unique among those that know one another.
    pub name: String,
    /// For people: whose site it is.
    pub organization: String,
    /// Where its replication mail goes.
    pub mailbox: String,
    /// DNs of the naming contexts that it masters.
    pub contexts: Vec<String>,
    /// Domains whose people it describes. They inform; they never route mail.
    pub address_spaces: Vec<String>,
    /// Octets of the largest payload that its mail system takes; the mail around it is up to half as large again.
    pub part_bytes_max: u64,
    /// Raised with every card that the site issues.
    pub serial: u64,
    pub issued: Timestamp,
}

/// A verified card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    pub fields: CardFields,
    pub public: SitePublic,
}

/// The fault of whoever issued or carried the card.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CardError {
    #[error("the site card is not sound: {0}")]
    Statement(#[from] StatementError),
    #[error("the site card has format {0}; this program knows format 1 and is too old for it")]
    Format(i64),
    #[error("the site card names a bad key: {0}")]
    Key(#[from] PublicKeyError),
    #[error("the site card names a bad key: `{0}` must be `{1}:` and 32 octets in base64")]
    KeyText(&'static str, &'static str),
    #[error("the site card is not sound: {0}")]
    Name(#[from] NameError),
    #[error("the site card is not sound: `{field}` {reason}")]
    Field { field: &'static str, reason: String },
    #[error("the new card is for site `{new}`, the known one for `{known}`")]
    OtherSite { known: String, new: String },
    #[error("the new card has serial {new}, the known one {known}: it is older, or repeated")]
    OldSerial { known: u64, new: u64 },
    #[error("the new card has another signing key, and the known key did not endorse it")]
    NotEndorsed,
}

impl Card {
    /// Issues this site's card. The text is the card; it parses back.
    pub fn issue(key: &SiteKey, fields: &CardFields) -> Result<String, CardError> {
        check(fields)?;
        let text = statement::sign(key, KIND, &print(fields, &key.public()));
        Card::parse_verified(&text).map(|_| text)
    }

    /// Issues the card after a renewal of keys or a move: endorsed by the former key if there is one, so that whoever
    /// pinned that one accepts it.
    pub fn issue_successor(key: &SiteKey, fields: &CardFields) -> Result<String, CardError> {
        let card = Card::issue(key, fields)?;
        Ok(key.former().map_or(card.clone(), |former| statement::endorse(&former, SUCCESSION, &card)))
    }

    /// Reads a card and verifies its signature against the key that it names.
    pub fn parse_verified(text: &str) -> Result<Card, CardError> {
        Ok(parse(text)?.0)
    }

    /// Reads a card that is to replace this pinned one: same site, later serial, and signed or endorsed by the pinned key.
    pub fn succeeded_by(&self, text: &str) -> Result<Card, CardError> {
        let (new, statement) = parse(text)?;
        if new.fields.name != self.fields.name {
            return Err(CardError::OtherSite { known: self.fields.name.clone(), new: new.fields.name });
        }
        if new.fields.serial <= self.fields.serial {
            return Err(CardError::OldSerial { known: self.fields.serial, new: new.fields.serial });
        }
        let same_key = new.public.signing == self.public.signing;
        if !same_key && !statement.is_endorsed(&self.public.signing, SUCCESSION) {
            return Err(CardError::NotEndorsed);
        }
        Ok(new)
    }

    /// Follows several successions, oldest first, for a site that missed some; those already known, and those before
    /// them, are passed over. The last one must be reached, or be known.
    pub fn succeeded_by_all<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> Result<Card, CardError> {
        self.way(texts).map(|(card, _)| card)
    }

    /// The same, and of the texts those that lead from this card to the last one.
    pub fn way<'a>(
        &self,
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<(Card, Vec<&'a str>), CardError> {
        let mut known = self.clone();
        let mut way = Vec::new();
        let mut last = Ok(());
        for text in texts {
            last = match known.succeeded_by(text) {
                Ok(next) => {
                    known = next;
                    way.push(text);
                    Ok(())
                }
                Err(CardError::OldSerial { .. }) => Ok(()),
                Err(error) => Err(error),
            };
        }
        last.map(|()| (known, way))
    }

    pub fn name(&self) -> &str {
        &self.fields.name
    }

    pub fn fingerprint(&self) -> String {
        self.public.fingerprint()
    }
}

/// The card as TOML spells it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spelled {
    format: i64,
    name: String,
    organization: String,
    mailbox: String,
    signing_key: String,
    sealing_key: String,
    contexts: Vec<String>,
    address_spaces: Vec<String>,
    part_bytes_max: u64,
    serial: u64,
    issued: String,
}

/// The one line that is read before the rest, so that a later format is named and not called damaged.
#[derive(Deserialize)]
struct SpelledFormat {
    format: i64,
}

fn parse(text: &str) -> Result<(Card, Statement), CardError> {
    let statement = Statement::parse(text)?;
    let toml = |error: toml::de::Error| StatementError::Toml(name::shown_lines(&error.to_string()));
    let SpelledFormat { format } = toml::from_str(statement.text()).map_err(toml)?;
    if format != 1 {
        return Err(CardError::Format(format));
    }
    let spelled: Spelled = toml::from_str(statement.text()).map_err(toml)?;
    let key =
        |field, kind, text: &str| statement::read_key(kind, text).ok_or(CardError::KeyText(field, kind));
    let signing = key("signing_key", "ed25519", &spelled.signing_key)?;
    let sealing = key("sealing_key", "x25519", &spelled.sealing_key)?;
    let public = SitePublic::from_bytes(&signing, &sealing)?;
    statement.verify(&public.signing, KIND)?;
    let issued = spelled.issued.parse().map_err(|error: jiff::Error| CardError::Field {
        field: "issued",
        reason: format!("is no RFC 3339 time: {}", name::shown(&error.to_string())),
    })?;
    debug_assert_eq!(spelled.format, format);
    let fields = CardFields {
        name: spelled.name,
        organization: spelled.organization,
        mailbox: spelled.mailbox,
        contexts: spelled.contexts,
        address_spaces: spelled.address_spaces,
        part_bytes_max: spelled.part_bytes_max,
        serial: spelled.serial,
        issued,
    };
    check(&fields)?;
    Ok((Card { fields, public }, statement))
}

fn check(fields: &CardFields) -> Result<(), CardError> {
    let refuse = |field, reason: &str| Err(CardError::Field { field, reason: reason.to_owned() });
    name::check_site(&fields.name)?;
    name::split_mailbox(&fields.mailbox)?;
    if fields.organization.is_empty() || !is_line(&fields.organization) {
        return refuse("organization", "must be one line of text");
    }
    if fields.contexts.len() > CONTEXTS_MAX || !fields.contexts.iter().all(|dn| !dn.is_empty() && is_line(dn))
    {
        return refuse("contexts", "must be at most 64 DNs");
    }
    if fields.address_spaces.len() > ADDRESS_SPACES_MAX
        || !fields.address_spaces.iter().all(|space| !space.is_empty() && is_line(space))
    {
        return refuse("address_spaces", "must be at most 256 domains");
    }
    if fields.part_bytes_max < limits::PART_BYTES_MIN as u64 {
        return refuse("part_bytes_max", "must be at least 16384");
    }
    Ok(())
}

fn is_line(text: &str) -> bool {
    text.len() <= CARD_TEXT_BYTES_MAX && !text.chars().any(char::is_control)
}

fn print(fields: &CardFields, public: &SitePublic) -> String {
    let quote = |text: &str| toml::Value::from(text).to_string();
    let list = |texts: &[String]| texts.iter().map(|text| quote(text)).collect::<Vec<_>>().join(", ");
    let CardFields { part_bytes_max, serial, issued, .. } = fields;
    [
        "# bridgehead site card: for the sites that are to share their directory with this one.\n".to_owned(),
        // Not written here: a forger's card would show the fingerprint that people expect.
        "# `bridgehead site add` shows its fingerprint; compare that by telephone.\n".to_owned(),
        "format = 1\n".to_owned(),
        format!("name = {}\n", quote(&fields.name)),
        format!("organization = {}\n", quote(&fields.organization)),
        format!("mailbox = {}\n", quote(&fields.mailbox)),
        format!("signing_key = {}\n", quote(&statement::print_key("ed25519", public.signing.as_bytes()))),
        format!("sealing_key = {}\n", quote(&statement::print_key("x25519", public.sealing.as_bytes()))),
        format!("contexts = [{}]\n", list(&fields.contexts)),
        format!("address_spaces = [{}]\n", list(&fields.address_spaces)),
        format!("part_bytes_max = {part_bytes_max}\nserial = {serial}\nissued = \"{issued}\"\n"),
    ]
    .concat()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::message::random::Seeded;

    pub(in crate::message) fn key(seed: u64) -> SiteKey {
        SiteKey::generate(&mut Seeded::new(seed))
    }

    pub(in crate::message) fn fields(name: &str) -> CardFields {
        CardFields {
            name: name.to_owned(),
            organization: "Exämple \"& Söhne\" \\ Co".to_owned(),
            mailbox: format!("repl@{name}.example"),
            contexts: vec![format!("ou={name},o=Example")],
            address_spaces: vec![format!("{name}.example")],
            part_bytes_max: 1 << 20,
            serial: 1,
            issued: "2026-11-22T14:00:00Z".parse().unwrap(),
        }
    }

    /// A card and the key behind it.
    pub(in crate::message) fn site(name: &str, seed: u64) -> (SiteKey, Card) {
        let key = key(seed);
        let card = Card::parse_verified(&Card::issue(&key, &fields(name)).unwrap()).unwrap();
        (key, card)
    }

    #[test]
    fn what_is_issued_parses_back() {
        let text = Card::issue(&key(1), &fields("alpha")).unwrap();
        let card = Card::parse_verified(&text).unwrap();
        assert_eq!(card.fields, fields("alpha"));
        assert_eq!(card.public, key(1).public());
        assert!(!text.contains(&card.fingerprint()), "it must be computed, not read");
    }

    #[test]
    fn every_bad_card_is_named() {
        let text = Card::issue(&key(1), &fields("alpha")).unwrap();
        let resign = |from: &str, to: &str| {
            let body = Statement::parse(&text).unwrap().text().replace(from, to);
            assert_ne!(body, Statement::parse(&text).unwrap().text(), "{from}");
            Card::parse_verified(&statement::sign(&key(1), KIND, &body)).unwrap_err()
        };
        assert!(matches!(resign("serial = 1", "serial = 1\nnovel = 2"), CardError::Statement(_)));
        assert!(matches!(resign("serial = 1", ""), CardError::Statement(_)));
        assert_eq!(resign("format = 1", "format = 2\nnovel = 2"), CardError::Format(2));
        assert!(matches!(resign("\"alpha\"", "\"../alpha\""), CardError::Name(NameError::Site(_))));
        assert!(matches!(resign("repl@", "repl "), CardError::Name(NameError::Mailbox(..))));
        assert!(matches!(resign("1048576", "1"), CardError::Field { field: "part_bytes_max", .. }));
        assert!(matches!(resign("2026-", "26-"), CardError::Field { field: "issued", .. }));
        assert!(matches!(resign("[\"ou", "[\"\", \"ou"), CardError::Field { field: "contexts", .. }));
        assert!(matches!(
            resign("[\"alpha.", "[\"\\u0007"),
            CardError::Field { field: "address_spaces", .. }
        ));
        assert!(matches!(resign("x25519:", "x448:"), CardError::KeyText("sealing_key", "x25519")));
        let own = statement::print_key("ed25519", key(1).public().signing.as_bytes());
        let other = statement::print_key("ed25519", key(2).public().signing.as_bytes());
        assert_eq!(resign(&own, &other), CardError::Statement(StatementError::BadSignature));
        let altered = text.replace("1048576", "1048577");
        assert_eq!(Card::parse_verified(&altered), Err(CardError::Statement(StatementError::BadSignature)));
        assert!(matches!(Card::parse_verified("\n"), Err(CardError::Statement(StatementError::Unsigned))));
    }

    /// Its own key signed it, and the same in the present format counts.
    #[test]
    fn a_downgrade_of_the_card_is_refused() {
        let text = Card::issue(&key(1), &fields("alpha")).unwrap();
        let in_format = |line: &str| {
            let body = Statement::parse(&text).unwrap().text().replace("format = 1\n", line);
            Card::parse_verified(&statement::sign(&key(1), KIND, &body))
        };
        assert!(in_format("format = 1\n").is_ok());
        assert_eq!(in_format("format = 0\n"), Err(CardError::Format(0)));
        assert!(in_format("").is_err(), "nor does it go without");
    }

    #[test]
    fn a_card_is_not_issued_with_bad_fields() {
        let many = vec!["o=x".to_owned(); CONTEXTS_MAX + 1];
        assert!(Card::issue(&key(1), &CardFields { contexts: many, ..fields("a") }).is_err());
        assert!(
            Card::issue(&key(1), &CardFields { organization: "a\nb".to_owned(), ..fields("a") }).is_err()
        );
        assert!(Card::issue(&key(1), &CardFields { mailbox: "a".to_owned(), ..fields("a") }).is_err());
    }

    #[test]
    fn only_the_pinned_key_names_its_successor() {
        let (first, card) = site("alpha", 1);
        let renewed = first.renew(&mut Seeded::new(9));
        let next = CardFields { serial: 2, mailbox: "new@alpha.example".to_owned(), ..fields("alpha") };
        let text = Card::issue_successor(&renewed, &next).unwrap();
        let new = card.succeeded_by(&text).unwrap();
        assert_eq!((&new.fields, &new.public), (&next, &renewed.public()));

        // An address move alone needs no endorsement; a foreign key and a lost endorsement are refused.
        assert!(card.succeeded_by(&Card::issue(&first, &next).unwrap()).is_ok());
        assert_eq!(card.succeeded_by(&Card::issue(&renewed, &next).unwrap()), Err(CardError::NotEndorsed));
        let thief = key(66).renew(&mut Seeded::new(67));
        assert_eq!(
            card.succeeded_by(&Card::issue_successor(&thief, &next).unwrap()),
            Err(CardError::NotEndorsed)
        );
        let (known, new) = (2, 2);
        let newer = Card::parse_verified(&text).unwrap();
        assert_eq!(newer.succeeded_by(&text), Err(CardError::OldSerial { known, new }));
        let beta = Card::issue(&first, &CardFields { serial: 2, ..fields("beta") }).unwrap();
        assert!(matches!(card.succeeded_by(&beta), Err(CardError::OtherSite { .. })));
    }

    #[test]
    fn missed_successions_are_followed_in_order() {
        let (first, card) = site("alpha", 1);
        let second = first.renew(&mut Seeded::new(2));
        let third = second.renew(&mut Seeded::new(3));
        let at = |serial| CardFields { serial, ..fields("alpha") };
        let to_second = Card::issue_successor(&second, &at(2)).unwrap();
        let to_third = Card::issue_successor(&third, &at(3)).unwrap();
        assert_eq!(card.succeeded_by(&to_third), Err(CardError::NotEndorsed));
        let followed = card.succeeded_by_all([to_second.as_str(), &to_third]).unwrap();
        assert_eq!(followed.public, third.public());
        assert_eq!(followed.succeeded_by_all([to_second.as_str(), &to_third]), Ok(followed));
    }
}
