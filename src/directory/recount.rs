//! What is drawn from the entries of a naming context is held against them, and drawn anew where they were altered
//! behind the program's back.
//!
//! PROMISES
//!   After [`rebuild`] number, digest, digest tree and names are those of the entries that are there, whatever they
//!   were before. So a comparison finds what differs from another replica, and nothing else of it need be sent.
//!   What cannot be read as an entry, stands in another's place or has another's name counts as gone: it is taken
//!   out, and is a difference like any other.
//!
//! LIMITS
//!   48 octets of memory for each entry.

use super::context::{ContextRecord, put_context, range};
use super::digest;
use super::entry::{self, Entry};
use super::lookup::{self, name_key, uuid_of_key};
use super::store::{Read, StoreError, Table, Write};

/// Whether the entries have the number and the digest that their record says.
pub fn is_sound(read: &dyn Read, record: &ContextRecord) -> Result<bool, StoreError> {
    let counted = lookup::digest_from_entries(read, record.number)?;
    Ok((counted.entries, counted.digest) == (record.entries, record.digest))
}

/// Draws everything from the entries anew; the position stays as it is.
pub fn rebuild(tx: &mut dyn Write, record: &ContextRecord) -> Result<ContextRecord, StoreError> {
    let (mut from, to) = (range(record.number).0.to_vec(), range(record.number).1);
    tx.delete_range(Table::Name, &from, &to)?;
    let mut items = Vec::new();
    loop {
        let mut some = Vec::new();
        tx.scan(Table::Entry, &from, &to, &mut |key, octets| {
            let found = entry_of(key, octets).map(|entry| {
                let name = name_key(record.number, entry.parent, &entry.rdn.normalized());
                (name, (entry.uuid, entry::hash_of(octets)))
            });
            some.push((key.to_vec(), found));
            some.len() < AT_ONCE
        })?;
        let Some((last, _)) = some.last() else { break };
        from = [last, &[0][..]].concat();
        for (key, found) in some {
            match found {
                Some((name, item)) if tx.get(Table::Name, &name)?.is_none() => {
                    tx.put(Table::Name, &name, item.0.as_bytes())?;
                    items.push(item);
                }
                _ => tx.delete(Table::Entry, &key)?,
            }
        }
    }
    let counted = digest::rebuild(tx, record.number, items)?;
    let rebuilt = ContextRecord { entries: counted.entries, digest: counted.digest, ..record.clone() };
    put_context(tx, &rebuilt)?;
    Ok(rebuilt)
}

/// The entry, if it can be read and is at its place.
fn entry_of(key: &[u8], octets: &[u8]) -> Option<Entry> {
    entry::read(octets).ok().filter(|entry| uuid_of_key(key) == Some(entry.uuid))
}

/// Records that are looked at before what was found is written.
const AT_ONCE: usize = 10_000;

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::directory::change::Change;
    use crate::directory::commit::Commit;
    use crate::directory::context::{context_by_number, create_context};
    use crate::directory::histories::{check_sound, dn};
    use crate::directory::lookup::entry_key;
    use crate::directory::memory::MemoryStore;
    use crate::directory::{Attributes, Digest};

    const TOP: &str = "o=x";

    /// `o=x` and 200 people.
    fn before() -> (MemoryStore, ContextRecord) {
        let mut store = MemoryStore::new();
        let mut tx = store.begin();
        create_context(&mut tx, &dn(TOP), "m", Uuid::from_u128(1)).unwrap();
        let mut commit = Commit::begin(&mut tx, 1, [7; 12]).unwrap();
        let people = (0..200).map(|n| format!("cn=p{n},{TOP}"));
        for name in std::iter::once(TOP.to_owned()).chain(people) {
            let attributes = Attributes::from_pairs([("description", b"x".to_vec())]).unwrap();
            commit.apply(&Change::Put { dn: dn(&name), uuid: None, attributes }).unwrap();
        }
        commit.finish().unwrap();
        tx.commit();
        let record = context_by_number(&store, 1).unwrap().unwrap();
        (store, record)
    }

    fn find(store: &MemoryStore, record: &ContextRecord, name: &str) -> (Vec<u8>, Entry) {
        let entry = lookup::entry_at(store, record, &dn(name)).unwrap().unwrap();
        (entry_key(1, entry.uuid).to_vec(), entry)
    }

    #[test]
    fn what_was_altered_by_hand_is_counted_as_it_is() {
        let (mut store, record) = before();
        assert!(is_sound(&store, &record).unwrap());
        let (altered, mut entry) = find(&store, &record, "cn=p3,o=x");
        let (twin, mut other) = find(&store, &record, "cn=p4,o=x");
        let (gone, _) = find(&store, &record, "cn=p5,o=x");
        let (spoiled, _) = find(&store, &record, "cn=p6,o=x");
        let (moved, elsewhere) = find(&store, &record, "cn=p7,o=x");
        entry.attributes = Attributes::from_pairs([("description", b"y".to_vec())]).unwrap();
        other.rdn = entry.rdn.clone();
        let mut tx = store.begin();
        tx.put(Table::Entry, &altered, &entry.encode()).unwrap();
        tx.put(Table::Entry, &twin, &other.encode()).unwrap();
        tx.delete(Table::Entry, &gone).unwrap();
        tx.put(Table::Entry, &spoiled, b"\xff no entry").unwrap();
        tx.delete(Table::Entry, &moved).unwrap();
        tx.put(Table::Entry, &[&moved[..16], &[9; 4]].concat(), &elsewhere.encode()).unwrap();
        tx.put(Table::Entry, &[&1u32.to_be_bytes()[..], b"short"].concat(), b"no key").unwrap();
        assert!(!is_sound(&tx, &record).unwrap());
        let rebuilt = rebuild(&mut tx, &record).unwrap();
        tx.commit();
        assert!(is_sound(&store, &rebuilt).unwrap());
        check_sound(&store, &rebuilt);
        assert_eq!(rebuilt.position, record.position);
        assert_eq!(rebuilt.entries, 201 - 4, "one altered; four have no name or no place of their own");
        assert_eq!(lookup::entry_at(&store, &rebuilt, &dn("cn=p3,o=x")).unwrap(), Some(entry));
    }

    #[test]
    fn what_is_sound_is_rebuilt_as_it_was() {
        let (mut store, record) = before();
        let dump = |store: &MemoryStore| {
            let mut all = Vec::new();
            for table in [Table::Entry, Table::Name, Table::Digest, Table::Context] {
                let visit = &mut |key: &[u8], value: &[u8]| {
                    all.push((table, key.to_vec(), value.to_vec()));
                    true
                };
                store.scan(table, &[], &[0xff; 5], visit).unwrap();
            }
            all
        };
        let sound = dump(&store);
        let mut tx = store.begin();
        let spoiled = ContextRecord { digest: Digest([1; 32]), entries: 3, ..record.clone() };
        assert_eq!(rebuild(&mut tx, &spoiled).unwrap(), record);
        tx.commit();
        assert_eq!(dump(&store), sound);
    }
}
