//! Looking into a message without applying it: what it is, who sealed it, what it would change.
//!
//! PROMISES
//!   Changes nothing; reads one view of the store. What a message would change is found by the code that would apply
//!   it, on the parts that have arrived and those in the message together.
//!
//! LIMITS
//!   Names of entries that a transfer adds are held in memory, some 200 octets each.

use std::collections::HashMap;

use serde::Serialize;
use thiserror::Error;
use uuid::Uuid;

use super::bundle;
use crate::config::Config;
use crate::directory::context::{ContextRecord, context, create_context};
use crate::directory::lookup;
use crate::directory::memory::MemoryStore;
use crate::directory::replica::AttributeDelta;
use crate::directory::{Dn, Rdn, Read, StoreError};
use crate::message::bounce;
use crate::message::keys::SiteKey;
use crate::message::mime::{self, ExtractError};
use crate::message::seal::OpenError;
use crate::replication::parts::{Assembly, Body, PartError, Source};
use crate::replication::peer::Peer;
use crate::replication::status::shown_time;
use crate::replication::transfer::{Base, Manifest, Planned, preview};
use crate::replication::wire::{Message, PartItem, WireError};

/// A message, opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inspection {
    pub from: String,
    pub to: String,
    pub sequence: u64,
    /// The sender's clock. RFC 3339, UTC.
    pub time: String,
    pub message_id: Option<String>,
    /// The pinned key that signed it.
    pub signed_by: String,
    pub payload_bytes: usize,
    /// Whether this site heard it, or a later one.
    pub heard: &'static str,
    /// What it says besides its transfers.
    pub says: Vec<String>,
    pub transfers: Vec<Transfer>,
}

/// One part of a transfer in the message, and what the transfer would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Transfer {
    pub context: String,
    pub part: u32,
    pub parts: u32,
    /// Parts that would still be missing.
    pub missing: u32,
    /// Where it starts and where it leads, once its first part is known.
    pub base: Option<String>,
    pub target: Option<String>,
    /// The master's signature on where it leads is good.
    pub master_signed: Option<bool>,
    pub added: u64,
    pub changed: u64,
    pub deleted: u64,
    /// Why it would change nothing, or cannot be looked at.
    pub reason: Option<String>,
    pub changes: Vec<Line>,
}

/// One entry that would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    pub change: &'static str,
    pub dn: String,
    pub attributes: Vec<String>,
}

/// Why a message cannot be looked into.
#[derive(Debug, Error)]
pub enum InspectError {
    #[error("a delivery report about mail that was sent from here: {0}")]
    Report(String),
    #[error("a bundle, not a message: `bridgehead bundle apply` takes it")]
    Bundle,
    #[error(transparent)]
    Extract(#[from] ExtractError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("it was opened, but {0}")]
    Wire(#[from] WireError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Opens a mail as it came, or what stands sealed in it.
pub fn inspect(
    config: &Config,
    key: &SiteKey,
    read: &dyn Read,
    octets: &[u8],
    lines_max: usize,
) -> Result<Inspection, InspectError> {
    if octets.starts_with(&crate::message::bundle::BUNDLE_MAGIC) {
        return Err(InspectError::Bundle);
    }
    let (sealed, message_id) = match octets.starts_with(&crate::message::envelope::MAGIC) {
        true => (octets.to_vec(), None),
        false => match mime::extract(octets) {
            Ok(found) => (found.sealed, found.message_id),
            Err(ExtractError::Report) => return Err(report(octets)),
            Err(error) => return Err(error.into()),
        },
    };
    let opened = bundle::open(config, key, &sealed)?;
    let message = Message::decode(&opened.payload)?;
    let from = opened.header.from;
    let peer = Peer::load(read, &from)?.unwrap_or_default();
    let card = config.partner(&from).map(|p| &p.card);
    let mut transfers = Vec::new();
    for item in &message.parts {
        if transfers.iter().all(|(id, _)| *id != item.part.transfer) {
            let of: Vec<&PartItem> =
                message.parts.iter().filter(|other| other.part.transfer == item.part.transfer).collect();
            transfers.push((item.part.transfer, transfer(config, read, &from, &of, lines_max)?));
        }
    }
    let sequence = opened.header.seq;
    let heard = match peer.window.highest() {
        Some(highest) if sequence > highest => "not yet: newer than all that was heard of the site",
        Some(highest) if sequence == highest => "yes: it is the last that was heard of the site",
        Some(_) => "overtaken: later ones were heard of the site",
        None => "nothing was heard of the site yet",
    };
    Ok(Inspection {
        says: says(&message),
        from,
        to: opened.header.to,
        sequence,
        time: format!("{:.3}", opened.header.time),
        message_id,
        signed_by: card.map_or_else(String::new, |card| card.fingerprint()),
        payload_bytes: opened.payload.len(),
        heard,
        transfers: transfers.into_iter().map(|(_, transfer)| transfer).collect(),
    })
}

fn report(octets: &[u8]) -> InspectError {
    let text = match bounce::parse(octets).as_ref().and_then(|bounce| bounce.worst()) {
        Some(recipient) => {
            let status = recipient.status.map_or_else(String::new, |status| status.to_string());
            let text = recipient.diagnostic.clone().unwrap_or_else(|| "no reason is given".to_owned());
            format!("{:?} {status} {text}", recipient.action).to_lowercase()
        }
        None => "it cannot be read".to_owned(),
    };
    InspectError::Report(text)
}

/// What a message says besides its transfers.
fn says(message: &Message) -> Vec<String> {
    let mut says = Vec::new();
    if let Some(hello) = &message.hello {
        let answer = if hello.answer { ", in answer to ours" } else { ", and asks for ours" };
        says.push(format!("hello: tells its card{answer}"));
    }
    for item in &message.vector {
        let holds = item.position.map_or("nothing".to_owned(), |position| format!("USN {}", position.usn));
        says.push(format!("holds {holds} of {} ({:?})", item.context, item.standing).to_lowercase());
    }
    if message.vector_digest.is_some() {
        says.push("stands with all other naming contexts as it said before".to_owned());
    }
    if message.vector_wanted {
        says.push("asks where the receiver stands with all naming contexts".to_owned());
    }
    for request in &message.requests {
        let what = match (&request.transfer, request.base) {
            (Some(_), _) => "parts that are missing".to_owned(),
            (None, Some(base)) => format!("what came after USN {}", base.usn),
            (None, None) => "everything".to_owned(),
        };
        says.push(format!("asks for {what} of {}", request.context));
    }
    says.extend(message.digests.iter().map(|item| format!("compares digests of {}", item.context)));
    says.extend(message.notices.iter().map(|notice| format!("notice {}: {}", notice.code, notice.text)));
    if message.answer_wanted {
        says.push("wants an answer at once".to_owned());
    }
    says
}

/// The body of a transfer in a store of its own, while the replica is read elsewhere.
struct Aside<'s> {
    at: &'s dyn Read,
    body: Body,
}

impl Source for Aside<'_> {
    fn next(&mut self, _: &dyn Read) -> Result<Option<Vec<u8>>, StoreError> {
        self.body.next(self.at)
    }
}

fn transfer(
    config: &Config,
    read: &dyn Read,
    from: &str,
    items: &[&PartItem],
    lines_max: usize,
) -> Result<Transfer, StoreError> {
    let first = items[0];
    let mut found = Transfer {
        context: first.context.clone(),
        part: first.part.index + 1,
        parts: first.part.count,
        missing: 0,
        base: None,
        target: None,
        master_signed: None,
        added: 0,
        changed: 0,
        deleted: 0,
        reason: None,
        changes: Vec::new(),
    };
    let mut store = MemoryStore::new();
    let mut tx = store.begin();
    Assembly::copy(read, &mut tx, from, first.part.transfer)?;
    let mut assembly = None;
    for PartItem { part, .. } in items {
        match Assembly::store(&mut tx, from, part) {
            Ok(stored) => assembly = Some(stored),
            Err(PartError::Store(error)) => return Err(error),
            Err(error) => found.reason = Some(error.to_string()),
        }
    }
    let Some(assembly) = assembly else { return Ok(found) };
    let (of, present) = assembly.count();
    found.missing = of - present;
    if let Ok(Some(manifest)) = assembly.manifest() {
        describe(config, &manifest, &mut found);
    }
    if found.missing > 0 {
        found.reason = Some(format!("{} of {of} parts have not arrived", found.missing));
        return Ok(found);
    }
    let (manifest, body) = match assembly.open(&tx) {
        Ok(opened) => opened,
        Err(PartError::Store(error)) => return Err(error),
        Err(error) => {
            found.reason = Some(error.to_string());
            return Ok(found);
        }
    };
    let known = Dn::parse(&first.context).ok().map(|dn| context(read, &dn)).transpose()?.flatten();
    match known {
        Some(record) => plan(read, &record, &manifest, Aside { at: &tx, body }, &mut found, lines_max),
        None => {
            // Nothing is held of it yet: as it would be in an empty store.
            let Ok(dn) = Dn::parse(&first.context) else { return Ok(found) };
            let mut empty = MemoryStore::new();
            let mut none = empty.begin();
            let Ok(record) = create_context(&mut none, &dn, from, Uuid::nil()) else { return Ok(found) };
            plan(&none, &record, &manifest, Aside { at: &tx, body }, &mut found, lines_max);
        }
    }
    Ok(found)
}

fn describe(config: &Config, manifest: &Manifest, found: &mut Transfer) {
    found.base = Some(match manifest.base {
        Base::Nothing => "nothing: all of the naming context".to_owned(),
        Base::At(position, _) => format!("USN {} of {}", position.usn, position.invocation),
        Base::Repair => "a repair of what was found to differ".to_owned(),
    });
    let Ok(said) = manifest.checkpoint.claimed() else { return };
    let time = shown_time(said.time.as_millisecond());
    let position = said.position;
    found.target = Some(format!(
        "USN {} of {}, {} entries, signed at {time}",
        position.usn, position.invocation, said.entries
    ));
    let masters = |contexts: &[String]| contexts.iter().any(|name| name.eq_ignore_ascii_case(&found.context));
    let master = config.partners.iter().find(|partner| masters(&partner.card.fields.contexts));
    let signed = master.map(|master| manifest.checkpoint.verify(&master.card.public.signing).is_ok());
    found.master_signed = Some(signed.unwrap_or(false));
}

fn plan(
    read: &dyn Read,
    record: &ContextRecord,
    manifest: &Manifest,
    mut body: Aside,
    found: &mut Transfer,
    lines_max: usize,
) {
    if let Ok(said) = manifest.checkpoint.claimed()
        && record.position.usn > 0
        && record.is_on_history(&said.position)
    {
        found.reason =
            Some(format!("this site is there already, or beyond: it stands at USN {}", record.position.usn));
        return;
    }
    let mut added: HashMap<Uuid, (Uuid, Rdn)> = HashMap::new();
    let mut lines: Vec<(&'static str, Result<String, Uuid>, Vec<String>)> = Vec::new();
    let mut note = |change, name, attributes| {
        if lines.len() < lines_max {
            lines.push((change, name, attributes));
        }
    };
    let counted = preview(read, record, manifest, &mut body, &mut |planned| match planned {
        Planned::Added(entry) => {
            note("add", Err(entry.uuid), Vec::new());
            added.insert(entry.uuid, (entry.parent, entry.rdn));
        }
        Planned::Replaced { dn, .. } => note("replace", Ok(dn.to_string()), Vec::new()),
        Planned::Changed { dn, delta } => {
            let mut what: Vec<String> = delta.attributes.iter().map(changed_name).collect();
            if delta.rdn.is_some() || delta.parent.is_some() {
                what.push("its name".to_owned());
            }
            note("change", Ok(dn.to_string()), what);
        }
        Planned::Deleted { dn } => note("delete", Ok(dn.to_string()), Vec::new()),
    });
    match counted {
        Ok(counts) => {
            (found.added, found.changed, found.deleted) = (counts.added, counts.changed, counts.deleted);
        }
        Err(error) => found.reason = Some(error.to_string()),
    }
    let named = |uuid: Uuid| name_of(read, record, &added, uuid).unwrap_or_else(|| uuid.to_string());
    found.changes = lines
        .into_iter()
        .map(|(change, name, attributes)| Line { change, dn: name.unwrap_or_else(named), attributes })
        .collect();
}

fn changed_name(delta: &AttributeDelta) -> String {
    match delta {
        AttributeDelta::Set(attribute) => attribute.name().to_owned(),
        AttributeDelta::Remove(name) => format!("{name} (removed)"),
        AttributeDelta::Values { name, remove, append } => {
            format!("{name} (+{} -{})", append.len(), remove.len())
        }
    }
}

/// The name of an entry that the transfer adds, by those above it, added or there.
fn name_of(
    read: &dyn Read,
    record: &ContextRecord,
    added: &HashMap<Uuid, (Uuid, Rdn)>,
    uuid: Uuid,
) -> Option<String> {
    let mut names = Vec::new();
    let mut at = uuid;
    for _ in 0..crate::limits::DN_DEPTH_MAX {
        if at.is_nil() {
            // The topmost has the naming context's own name.
            names.pop();
            names.push(record.dn.to_string());
            return Some(names.join(","));
        }
        match added.get(&at) {
            Some((parent, rdn)) => {
                names.push(rdn.as_str().to_owned());
                at = *parent;
            }
            None => {
                names.push(lookup::dn_of(read, record, at).ok()??.to_string());
                return Some(names.join(","));
            }
        }
    }
    None
}
