//! Connected sites: `sites.d/NAME.toml`, one file each, with the pinned card and what we agreed for the link.
//!
//! ```toml
//! card = '''
//! (the card's text, as it came)
//! '''
//!
//! [link]
//! paused = false
//! ```
//!
//! PROMISES
//!   A card that does not verify, or two sites that claim one name or one naming context, are problems:
//!   nothing is taken on trust because it stands in a file.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use toml::de::DeTable;

use super::SiteConfig;
use super::problem::{Problem, Problems};
use super::section::{Document, Section};
use crate::directory::dn::Dn;
use crate::limits;
use crate::message::card::Card;
use crate::message::pinned::{FormerCard, Pinned};
use crate::replication::engine::{Partner, Passage};

/// One connected site.
#[derive(Clone, Debug)]
pub struct PartnerConfig {
    pub file: PathBuf,
    pub card: Card,
    /// The card as it came.
    pub card_text: String,
    /// Cards before that, oldest first; the keys of some still count.
    pub former: Vec<FormerCard>,
    /// Whether a card that succeeds this one is pinned without asking.
    pub successors: Policy,
    /// What is done about sites that this one introduces.
    pub introductions: Policy,
    /// Whether mail is exchanged with it; if not, it is known as a master, and nothing more.
    pub exchange: bool,
    /// What the engine needs to know of the link; its `part_bytes_max` is the link's, the card's limit applies too.
    pub link: Partner,
}

impl PartnerConfig {
    pub fn pinned(&self) -> Pinned {
        Pinned { card: self.card.clone(), text: self.card_text.clone(), former: self.former.clone() }
    }
}

/// What is done about a card that a site tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Nothing.
    Off,
    /// It waits for the operator: `bridgehead site list`.
    Ask,
    Accept,
}

/// Reads every connected site's file; they are checked against one another and against `own`.
pub fn load_all(dir: &Path, own: Option<&SiteConfig>) -> Result<Vec<PartnerConfig>, Problems> {
    let mut problems = Vec::new();
    let mut partners = Vec::new();
    for file in files(dir)? {
        let loaded = match fs::read_to_string(&file) {
            Ok(text) => parse(&file, &text),
            Err(error) => Err(Problems::whole_file(&file, error.to_string(), "")),
        };
        match loaded {
            Ok(partner) => partners.push(partner),
            Err(more) => problems.extend(more.0),
        }
    }
    problems.extend(clashes(&partners, own));
    if problems.is_empty() { Ok(partners) } else { Err(Problems(problems)) }
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, Problems> {
    let unreadable =
        |error: std::io::Error| Problems::whole_file(dir, error.to_string(), "`bridgehead init` makes it");
    let entries = fs::read_dir(dir).map_err(unreadable)?;
    let paths: Result<Vec<_>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(unreadable)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    Ok(paths)
}

/// The text of the file of a site that is known as a master, with which no mail is exchanged.
pub fn print_introduced(card_text: &str, by: &str) -> String {
    print(card_text).replacen(
        "[link]\n",
        &format!("[link]\nexchange = false             # introduced by {by}; no mail goes to it or is taken from it\n"),
        1,
    )
}

/// The file's text with what is pinned now. All else in it stays as it is. None: the file cannot be read.
pub fn print_pinned(text: &str, pinned: &Pinned) -> Option<String> {
    let list = |items: Vec<String>| format!("[{}]", items.join(", "));
    let mut card = multi_line(&pinned.text);
    if !pinned.former.is_empty() {
        card += &format!(
            "\nformer = {}\nformer_until = {}",
            list(pinned.former.iter().map(|former| multi_line(&former.text)).collect()),
            list(pinned.former.iter().map(|former| format!("\"{}\"", former.until)).collect())
        );
    }
    let root = DeTable::parse(text).ok()?;
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    for (key, value) in root.get_ref().iter() {
        match key.get_ref().as_ref() {
            "card" => edits.push((value.span(), card.clone())),
            "former" | "former_until" => {
                // With the end of its line.
                let end = value.span().end + usize::from(text[value.span().end..].starts_with('\n'));
                edits.push((key.span().start..end, String::new()));
            }
            _ => {}
        }
    }
    edits.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
    let mut after = text.to_owned();
    edits.into_iter().for_each(|(span, new)| after.replace_range(span, &new));
    Some(after)
}

/// The text of a new connected site's file.
pub fn print(card_text: &str) -> String {
    format!(
        "# A connected site. The card is pinned as it came; `bridgehead site add` writes this file.\n\
         card = {}\n\n[link]\n#paused = false              # nothing is sent; what comes in is still taken\n\
         #part_bytes = \"512 KiB\"     # the smaller of this, the general setting and the site's own limit\n\
         #hold_deletions_percent = 30 # more than this share of a naming context at once waits for `bridgehead hold approve`\n\
         #schedule = \"always\"        # never, every 4h, Mon-Fri 18:00-06:00 Europe/Berlin\n\
         #inbound = \"all\"            # what is taken: all, own (what it masters), or a list of naming contexts\n\
         #outbound = \"own\"           # what is sent: all (as a hub does), own (what we master), or a list\n\
         #successors = \"accept\"       # a new card that its key endorsed: off, ask or accept\n\
         #introductions = \"ask\"       # sites that it introduces: off, ask or accept\n\
         #exchange = true             # false: no mail either way; its naming contexts come by way of others\n",
        multi_line(card_text)
    )
}

fn multi_line(text: &str) -> String {
    if text.contains("'''") || text.ends_with('\'') || text.contains('\r') {
        return toml::Value::String(text.to_owned()).to_string();
    }
    format!("'''\n{text}'''")
}

pub fn parse(file: &Path, text: &str) -> Result<PartnerConfig, Problems> {
    let document = Document::parse(file, text);
    let root = document.root();
    let card = root.required("card", "the site's card", |text| {
        Card::parse_verified(text).map(|card| (card, text.to_owned()))
    });
    let former = read_former(&root);
    let link = root.section("link");
    let name = card.as_ref().map_or("", |(card, _)| card.name());
    let mut settings = Settings::default();
    let link = link.map_or_else(|| unconfigured(name), |section| read_link(section, name, &mut settings));
    root.finish();
    let Settings { successors, introductions, exchange } = settings;
    document.finish(card.map(|(card, card_text)| PartnerConfig {
        file: file.to_owned(),
        card,
        card_text,
        former,
        successors,
        introductions,
        exchange,
        link,
    }))
}

fn read_former(root: &Section) -> Vec<FormerCard> {
    let cards = root.list("former", |text| Card::parse_verified(text).map(|card| (card, text.to_owned())));
    let times = root.list("former_until", |text| text.parse::<Timestamp>());
    let (cards, times) = (cards.unwrap_or_default(), times.unwrap_or_default());
    if cards.len() != times.len() {
        root.refuse("former_until", "is to have one time for each card in `former`", "");
    }
    let both = cards.into_iter().zip(times);
    both.map(|((card, text), until)| FormerCard { card, text, until }).collect()
}

/// What a link's section says that is not for the engine.
struct Settings {
    successors: Policy,
    introductions: Policy,
    exchange: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { successors: Policy::Accept, introductions: Policy::Ask, exchange: true }
    }
}

impl std::str::FromStr for Policy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Policy, Self::Err> {
        match text {
            "off" => Ok(Policy::Off),
            "ask" => Ok(Policy::Ask),
            "accept" => Ok(Policy::Accept),
            _ => Err("is not off, ask or accept"),
        }
    }
}

/// A link about which nothing was said.
fn unconfigured(name: &str) -> Partner {
    Partner {
        delete_percent_max: limits::HOLD_DELETIONS_PERCENT,
        part_bytes_max: u64::MAX,
        ..Partner::new(name)
    }
}

fn read_link(section: Section, name: &str, settings: &mut Settings) -> Partner {
    settings.successors = section.parsed("successors", str::parse).unwrap_or(settings.successors);
    settings.introductions = section.parsed("introductions", str::parse).unwrap_or(settings.introductions);
    settings.exchange = section.boolean("exchange").unwrap_or(settings.exchange);
    let mut link = unconfigured(name);
    link.paused = section.boolean("paused").unwrap_or(false);
    link.one_way = section.boolean("one_way").unwrap_or(false);
    let bounds = limits::PART_BYTES_MIN as u64..limits::REPLICATION_MESSAGE_BYTES_MAX as u64 / 2;
    link.part_bytes_max = section.octets("part_bytes", bounds).unwrap_or(link.part_bytes_max);
    link.day_bytes_max = section.octets("bytes_per_day", 65_536..1 << 50);
    link.schedule = section.parsed("schedule", str::parse).unwrap_or(link.schedule);
    let percent = section.number("hold_deletions_percent", 0..101);
    link.delete_percent_max = percent.map_or(link.delete_percent_max, |percent| percent as u8);
    for (key, passage) in [("inbound", &mut link.inbound), ("outbound", &mut link.outbound)] {
        if let Some(read) = read_passage(&section, key) {
            *passage = read;
        }
    }
    section.finish();
    link
}

/// `"all"`, `"own"`, or a list of naming contexts; an empty one lets nothing pass.
fn read_passage(section: &Section, key: &'static str) -> Option<Passage> {
    let words = section.list(key, |word| match word {
        "all" | "own" => Ok(word.to_owned()),
        dn => Dn::parse(dn).map(|_| dn.to_owned()),
    })?;
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["all"] => Some(Passage::All),
        ["own"] => Some(Passage::Own),
        _ if words.iter().any(|word| word == "all" || word == "own") => {
            section.refuse(key, "\"all\" and \"own\" stand alone", "");
            None
        }
        _ => Some(Passage::Only(words)),
    }
}

/// What is wrong between connected sites, and between them and our own.
pub fn clashes(partners: &[PartnerConfig], own: Option<&SiteConfig>) -> Vec<Problem> {
    let mut masters: Vec<(String, Dn)> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    if let Some(own) = own {
        names.push(own.name.to_lowercase());
        masters.extend(own.contexts.iter().map(|dn| (own.name.clone(), dn.clone())));
    }
    let mut problems = Vec::new();
    for partner in partners {
        let mut refuse = |message: String, hint: &str| {
            problems.push(Problem { file: partner.file.clone(), line: 0, message, hint: hint.to_owned() });
        };
        let name = partner.card.name();
        if names.contains(&name.to_lowercase()) {
            refuse(format!("there is a site {name} already"), "each site needs a name of its own");
        }
        names.push(name.to_lowercase());
        if own.is_some_and(|own| own.mailbox.eq_ignore_ascii_case(&partner.card.fields.mailbox)) {
            refuse(
                format!("its mailbox {} is this site's own", partner.card.fields.mailbox),
                "each site needs a replication mailbox of its own",
            );
        }
        for dn in partner.card.fields.contexts.iter().filter_map(|dn| Dn::parse(dn).ok()) {
            let other = masters.iter().find(|(_, other)| dn.is_under(other) || other.is_under(&dn));
            if let Some((master, other)) = other {
                let message = format!("its naming context {dn} overlaps {other}, which {master} masters");
                refuse(message, "a naming context has one master");
            }
            masters.push((name.to_owned(), dn));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::schedule::Schedule;

    fn link(text: &str) -> Result<Partner, String> {
        let document = Document::parse(Path::new("tokyo.toml"), text);
        let link = document
            .root()
            .section("link")
            .map(|section| read_link(section, "tokyo", &mut Settings::default()));
        document.finish(link).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_link_says_when_and_what() {
        let read = link(
            "[link]\nschedule = \"Mon-Fri 18:00-06:00 Europe/Berlin\"\ninbound = \"own\"\noutbound = \"all\"\n",
        );
        let read = read.unwrap();
        assert_eq!(read.schedule, "Mon-Fri 18:00-06:00 Europe/Berlin".parse::<Schedule>().unwrap());
        assert_eq!((read.inbound, read.outbound), (Passage::Own, Passage::All));
        let read = link("[link]\nschedule = \"never\"\noutbound = [\"ou=paris,o=Example\"]\ninbound = []\n")
            .unwrap();
        assert_eq!(read.schedule, Schedule::Never);
        assert_eq!(read.outbound, Passage::Only(vec!["ou=paris,o=Example".into()]));
        assert_eq!(read.inbound, Passage::Only(Vec::new()));
    }

    #[test]
    fn what_is_not_said_is_the_default() {
        let read = link("[link]\n").unwrap();
        assert_eq!((read.inbound, read.outbound), (Passage::All, Passage::Own));
        assert_eq!(read.schedule, Schedule::Always);
    }

    #[test]
    fn a_wrong_link_is_a_problem_with_its_line() {
        for (text, named) in [
            ("[link]\nschedule = \"Mon-Fri 18-6\"\n", "18-6"),
            ("[link]\nschedule = \"Mon 08:00-09:00 Europe/Atlantis\"\n", "Atlantis"),
            ("[link]\noutbound = [\"all\", \"ou=paris,o=Example\"]\n", "stand alone"),
            ("[link]\ninbound = \"everything\"\n", "everything"),
        ] {
            let problem = link(text).unwrap_err();
            assert!(problem.contains(named) && problem.contains("tokyo.toml:2"), "{problem}");
        }
    }
}
