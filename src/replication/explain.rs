//! Where an entry came from, as far as the store knows: master, position, message, time; attribute by attribute.
//!
//! PROMISES
//!   Reads only. What the log does not know any more is said to be so, never guessed.
//!
//! The field names are those of `bridgehead explain --json` and stay.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use uuid::Uuid;

use super::engine::Shown;
use super::engine::config::same_context;
use super::peer::Millis;
use super::provenance::{self, Step};
use super::status::{Status, shown_time};
use crate::directory::context::{ContextRecord, context_of, contexts};
use crate::directory::log::{Touched, touched_back};
use crate::directory::lookup::{self, Finder};
use crate::directory::{Dn, Read, StoreError};

/// What is known of one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub dn: String,
    pub state: State,
    /// The naming context that the name belongs to, if one is held here.
    pub context: Option<Home>,
    pub entry_uuid: Option<String>,
    /// The name that the entry has now, or that something near it has.
    pub now: Option<String>,
    /// When the entry was last changed, renamed or deleted.
    pub last_change: Option<Change>,
    /// When it was added, if the log reaches back so far.
    pub added: Option<Change>,
    /// Attributes that were changed since, newest first.
    pub attributes: Vec<AttributeChange>,
    /// The log knows what was touched after this USN.
    pub log_since: Option<u64>,
    /// The deepest entry above the name that is there.
    pub nearest: Option<String>,
    /// Naming contexts held here, if the name belongs to none.
    pub held: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Present,
    /// It had this name and has another one now.
    Renamed,
    Deleted,
    /// No entry of this name is known, now or in the log.
    Unknown,
    /// The name belongs to no naming context that is held here.
    NotHeld,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Home {
    pub context: String,
    pub master: String,
    /// This site is the master.
    pub own: bool,
    pub position: Shown,
    pub verified: bool,
    pub standing: &'static str,
}

/// One change, and how it came here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    pub usn: u64,
    /// None: older than the records that are kept.
    pub arrival: Option<Arrival>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Arrival {
    pub position: Shown,
    /// When it was here. RFC 3339, UTC.
    pub at: String,
    /// The site that sent it; none: it was committed here.
    pub from: Option<String>,
    /// When the master signed the position, by its own clock.
    pub signed_at: Option<String>,
    /// All of the naming context was sent, not what had changed.
    pub full: bool,
    /// How many messages brought it; of many, only the first and the last are named.
    pub messages: u64,
    pub named: Vec<Mail>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mail {
    pub message_id: Option<String>,
    pub sequence: u64,
    pub received: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AttributeChange {
    pub name: String,
    pub usn: u64,
    /// Only some of its values.
    pub values: bool,
    /// It is not there any more.
    pub removed: bool,
}

/// What the log says of one entry.
#[derive(Default)]
struct Trail {
    last: Option<u64>,
    added: Option<u64>,
    /// By name in lower case: USN, and whether only values were changed.
    attributes: BTreeMap<String, (u64, bool)>,
}

/// Explains `dn`; `status` is that of the same view.
///
/// # Errors
/// The store's.
pub fn explain(read: &dyn Read, status: &Status, dn: &Dn) -> Result<Explanation, StoreError> {
    let Some(record) = context_of(read, dn)? else {
        let held = contexts(read)?.iter().map(|record| record.dn.to_string()).collect();
        return Ok(Explanation { held, ..blank(dn, State::NotHeld) });
    };
    let mut found = Explanation { context: home(status, &record), ..blank(dn, State::Unknown) };
    found.log_since = Some(record.log_floor);
    match lookup::entry_at(read, &record, dn)? {
        Some(entry) => {
            found.state = State::Present;
            found.now = lookup::dn_of(read, &record, entry.uuid)?.map(|dn| dn.to_string());
            let trail = trail(read, &record, entry.uuid)?;
            let there = |name: &str| entry.attributes.iter().any(|a| a.name().eq_ignore_ascii_case(name));
            found.attributes = trail
                .attributes
                .iter()
                .map(|(name, (usn, values))| {
                    let shown = entry.attributes.iter().find(|a| a.name().eq_ignore_ascii_case(name));
                    let name = shown.map_or_else(|| name.clone(), |attribute| attribute.name().to_owned());
                    AttributeChange { removed: !there(&name), name, usn: *usn, values: *values }
                })
                .collect();
            found.attributes.sort_by(|a, b| b.usn.cmp(&a.usn).then_with(|| a.name.cmp(&b.name)));
            fill(read, &record, &mut found, entry.uuid, &trail)?;
        }
        None => look_back(read, &record, dn, &mut found)?,
    }
    Ok(found)
}

fn blank(dn: &Dn, state: State) -> Explanation {
    Explanation {
        dn: dn.to_string(),
        state,
        context: None,
        entry_uuid: None,
        now: None,
        last_change: None,
        added: None,
        attributes: Vec::new(),
        log_since: None,
        nearest: None,
        held: Vec::new(),
    }
}

fn home(status: &Status, record: &ContextRecord) -> Option<Home> {
    let name = record.dn.to_string();
    let known = status.contexts.iter().find(|context| same_context(&context.context, &name))?;
    Some(Home {
        context: name,
        own: known.master == status.site,
        master: known.master.clone(),
        position: known.position.clone(),
        verified: known.verified,
        standing: known.standing,
    })
}

/// The name is not there: was it ever, and what is near?
fn look_back(
    read: &dyn Read,
    record: &ContextRecord,
    dn: &Dn,
    found: &mut Explanation,
) -> Result<(), StoreError> {
    let mut above = dn.parent();
    while let Some(name) = above.filter(|name| name.is_under(&record.dn)) {
        if let Some(uuid) = lookup::find(read, record, &name)? {
            found.nearest = lookup::dn_of(read, record, uuid)?.map(|dn| dn.to_string());
            break;
        }
        above = name.parent();
    }
    let Some(uuid) = former(read, record, dn)? else { return Ok(()) };
    found.state = State::Deleted;
    if let Some(now) = lookup::dn_of(read, record, uuid)? {
        found.state = State::Renamed;
        found.now = Some(now.to_string());
    }
    let trail = trail(read, record, uuid)?;
    fill(read, record, found, uuid, &trail)
}

/// The entry that had this name last, by what the log knows of names that were given up.
fn former(read: &dyn Read, record: &ContextRecord, dn: &Dn) -> Result<Option<Uuid>, StoreError> {
    let mut left: HashMap<(Uuid, Vec<u8>), Uuid> = HashMap::new();
    touched_back(read, record.number, &mut |_, touched| {
        if let Touched::Left(uuid, parent, rdn) = touched {
            left.entry((*parent, rdn.clone())).or_insert(*uuid);
        }
        true
    })?;
    let finder = Finder::new(record);
    let depth = dn.rdns().len() - record.dn.rdns().len();
    let mut at = Uuid::nil();
    for rdn in dn.rdns()[..=depth].iter().rev() {
        let there = finder.step(read, at, rdn)?;
        match there.or_else(|| left.get(&(at, rdn.normalized())).copied()) {
            Some(next) => at = next,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

fn trail(read: &dyn Read, record: &ContextRecord, wanted: Uuid) -> Result<Trail, StoreError> {
    let mut trail = Trail::default();
    touched_back(read, record.number, &mut |usn, touched| {
        if touched.uuid() != wanted {
            return true;
        }
        trail.last = trail.last.or(Some(usn));
        match touched {
            Touched::Attribute(_, name) => {
                trail.attributes.entry(name.to_ascii_lowercase()).or_insert((usn, false));
            }
            Touched::Value(_, name, _) => {
                trail.attributes.entry(name.to_ascii_lowercase()).or_insert((usn, true));
            }
            // What was before is of another life of the entry.
            Touched::Added(_) => trail.added = Some(usn),
            Touched::Deleted(_) | Touched::Named(_) | Touched::Left(..) => {}
        }
        trail.added.is_none()
    })?;
    Ok(trail)
}

fn fill(
    read: &dyn Read,
    record: &ContextRecord,
    found: &mut Explanation,
    uuid: Uuid,
    trail: &Trail,
) -> Result<(), StoreError> {
    found.entry_uuid = Some(uuid.to_string());
    found.last_change = trail.last.map(|usn| change(read, record, usn)).transpose()?;
    found.added = trail.added.map(|usn| change(read, record, usn)).transpose()?;
    if trail.last.is_none() && record.log_floor > 0 {
        // Not touched since the log begins: it came with what was loaded there, or was there before.
        let arrival = step(read, record, record.log_floor)?.filter(|arrival| arrival.full);
        found.last_change = arrival.map(|arrival| Change { usn: record.log_floor, arrival: Some(arrival) });
    }
    Ok(())
}

fn change(read: &dyn Read, record: &ContextRecord, usn: u64) -> Result<Change, StoreError> {
    Ok(Change { usn, arrival: step(read, record, usn)? })
}

fn step(read: &dyn Read, record: &ContextRecord, usn: u64) -> Result<Option<Arrival>, StoreError> {
    let found = provenance::step_to(read, record.number, usn)?;
    // One that led to another history was overtaken.
    Ok(found.filter(|step| record.is_on_history(&step.position)).map(arrival))
}

fn arrival(step: Step) -> Arrival {
    let time = |at: Millis| shown_time(at);
    Arrival {
        position: step.position.into(),
        at: time(step.at),
        from: step.from,
        signed_at: step.signed_at.map(time),
        full: step.full,
        messages: step.carriers.count,
        named: step
            .carriers
            .named
            .into_iter()
            .map(|mail| Mail { message_id: mail.message_id, sequence: mail.seq, received: time(mail.at) })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::Attributes;
    use crate::directory::change::{self, Change as Edit, Modification};
    use crate::directory::commit::Commit;
    use crate::directory::context::create_context;
    use crate::directory::log;
    use crate::directory::memory::MemoryStore;

    #[test]
    fn what_the_log_has_forgotten_is_said_to_be_older() {
        let mut store = MemoryStore::new();
        let mut tx = store.begin();
        let dn = |text: &str| Dn::parse(text).unwrap();
        let number = create_context(&mut tx, &dn("o=x"), "x", Uuid::from_u128(1)).unwrap().number;
        let a = dn("cn=a,o=x");
        let pairs = || Attributes::from_pairs(vec![("cn".to_owned(), b"a".to_vec())]).unwrap();
        let title = || {
            let values = vec![b"t".to_vec()];
            vec![Modification { operation: change::Operation::Add, attribute: "title".into(), values }]
        };
        for edit in [
            Edit::Add { dn: a.clone(), uuid: None, attributes: pairs() },
            Edit::Add { dn: dn("cn=b,o=x"), uuid: None, attributes: pairs() },
            Edit::Modify { dn: a.clone(), modifications: title() },
        ] {
            let usn = context_of(&tx, &a).unwrap().unwrap().position.usn;
            let mut commit = Commit::begin(&mut tx, number, [usn as u8; 12]).unwrap();
            commit.apply(&edit).unwrap();
            commit.finish().unwrap();
        }
        let status = Status { site: "x".into(), contexts: Vec::new(), partners: Vec::new() };
        let before = explain(&tx, &status, &a).unwrap();
        assert_eq!(before.added.map(|change| change.usn), Some(1));
        assert_eq!(before.attributes.len(), 1);
        log::trim(&mut tx, number, 2).unwrap();
        let after = explain(&tx, &status, &a).unwrap();
        assert_eq!((after.added, after.log_since), (None, Some(2)));
        assert_eq!(after.last_change.map(|change| change.usn), Some(3));
        let b = explain(&tx, &status, &dn("cn=b,o=x")).unwrap();
        assert_eq!((b.state, b.last_change), (State::Present, None));
        let gone = explain(&tx, &status, &dn("cn=c,cn=b,o=x")).unwrap();
        assert_eq!((gone.state, gone.nearest.as_deref()), (State::Unknown, Some("cn=b,o=x")));
    }
}
