//! Naming contexts out, as LDIF in canonical order.
//!
//! PROMISES
//!   Equal replicas give equal octets. Parents stand before their children, siblings in the order of their
//!   normalized RDNs, attributes in that of their names, values as their writer ordered them, but many as they came.

use std::io;

use thiserror::Error;
use uuid::Uuid;

use super::context::ContextRecord;
use super::dn::Dn;
use super::ldif::Writer;
use super::lookup;
use super::store::{Read, StoreError};

#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Write each entry's entryUUID, so that reading the file elsewhere keeps identities. Most LDAP
    /// servers refuse it from an ordinary client.
    pub entry_uuids: bool,
}

#[derive(Debug, Error)]
pub enum ExportError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("writing failed: {0}")]
    Io(#[from] io::Error),
}

/// Writes all entries, one naming context after the other, and returns their number. `progress` hears it on the way.
pub fn export(
    read: &dyn Read,
    contexts: &[ContextRecord],
    out: &mut dyn io::Write,
    options: Options,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, ExportError> {
    let mut writer = Writer::new(out)?;
    let mut written = 0;
    for context in contexts {
        let before = written;
        written += write_context(read, context, &mut writer, options, &mut |entries| {
            if entries % PROGRESS_ENTRIES == 0 {
                progress(before + entries);
            }
        })?;
    }
    writer.finish()?;
    Ok(written)
}

fn write_context(
    read: &dyn Read,
    context: &ContextRecord,
    writer: &mut Writer<&mut dyn io::Write>,
    options: Options,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, ExportError> {
    let mut written = 0;
    // What is still to be written: for each level the children left, last first, and the name above.
    let mut levels: Vec<(Vec<Uuid>, Option<Dn>)> =
        vec![(children(read, context, Uuid::nil())?, context.dn.parent())];
    while let Some((left, above)) = levels.last_mut() {
        let Some(uuid) = left.pop() else {
            levels.pop();
            continue;
        };
        let damaged = |what: &str| StoreError::Damaged(format!("the name index and entry {uuid} {what}"));
        let entry = lookup::entry(read, context.number, uuid)?.ok_or_else(|| damaged("do not agree"))?;
        let dn = match above {
            Some(above) => above.child(entry.rdn),
            None => Dn::from_rdns(vec![entry.rdn]),
        };
        let dn = dn.map_err(|_| damaged("go in a circle"))?;
        writer.entry(&dn, options.entry_uuids.then_some(uuid), &entry.attributes)?;
        written += 1;
        progress(written);
        let below = children(read, context, uuid)?;
        if !below.is_empty() {
            levels.push((below, Some(dn)));
        }
    }
    Ok(written)
}

/// Entries between two words on progress.
const PROGRESS_ENTRIES: u64 = 256;

/// Last first.
fn children(read: &dyn Read, context: &ContextRecord, parent: Uuid) -> Result<Vec<Uuid>, StoreError> {
    let mut found = Vec::new();
    lookup::children(read, context.number, parent, &mut |uuid| {
        found.push(uuid);
        true
    })?;
    found.reverse();
    Ok(found)
}
