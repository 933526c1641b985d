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
use std::path::{Path, PathBuf};

use super::SiteConfig;
use super::problem::{Problem, Problems};
use super::section::{Document, Section};
use crate::directory::dn::Dn;
use crate::limits;
use crate::message::card::Card;
use crate::replication::engine::{Partner, Passage};

/// One connected site.
#[derive(Clone, Debug)]
pub struct PartnerConfig {
    pub file: PathBuf,
    pub card: Card,
    /// What the engine needs to know of the link; its `part_bytes_max` is the link's, the card's limit applies too.
    pub link: Partner,
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

/// The text of a new connected site's file.
pub fn print(card_text: &str) -> String {
    format!(
        "# A connected site. The card is pinned as it came; `bridgehead site add` writes this file.\n\
         card = {}\n\n[link]\n#paused = false              # nothing is sent; what comes in is still taken\n\
         #part_bytes = \"512 KiB\"     # the smaller of this, the general setting and the site's own limit\n\
         #hold_deletions_percent = 30 # more than this share of a naming context at once waits for `bridgehead hold approve`\n\
         #inbound = []                # only these naming contexts are taken; default: all that it masters or passes on\n\
         #outbound = []               # only these naming contexts are sent; default: all\n",
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
    let card = root.required("card", "the site's card", Card::parse_verified);
    let link = root.section("link");
    let name = card.as_ref().map_or("", Card::name);
    let link = link.map_or_else(|| unconfigured(name), |section| read_link(section, name));
    root.finish();
    document.finish(card.map(|card| PartnerConfig { file: file.to_owned(), card, link }))
}

/// A link about which nothing was said.
fn unconfigured(name: &str) -> Partner {
    Partner {
        delete_percent_max: limits::HOLD_DELETIONS_PERCENT,
        part_bytes_max: u64::MAX,
        ..Partner::new(name)
    }
}

fn read_link(section: Section, name: &str) -> Partner {
    let mut link = unconfigured(name);
    link.paused = section.boolean("paused").unwrap_or(false);
    link.one_way = section.boolean("one_way").unwrap_or(false);
    let bounds = limits::PART_BYTES_MIN as u64..limits::REPLICATION_MESSAGE_BYTES_MAX as u64 / 2;
    link.part_bytes_max = section.octets("part_bytes", bounds).unwrap_or(link.part_bytes_max);
    link.day_bytes_max = section.octets("bytes_per_day", 65_536..1 << 50);
    let percent = section.number("hold_deletions_percent", 0..101);
    link.delete_percent_max = percent.map_or(link.delete_percent_max, |percent| percent as u8);
    let context = |dn: &str| Dn::parse(dn).map(|_| dn.to_owned());
    for (key, passage) in [("inbound", &mut link.inbound), ("outbound", &mut link.outbound)] {
        if let Some(contexts) = section.list(key, context) {
            *passage = Passage::Only(contexts);
        }
    }
    section.finish();
    link
}

fn clashes(partners: &[PartnerConfig], own: Option<&SiteConfig>) -> Vec<Problem> {
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
