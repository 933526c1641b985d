//! Records as they were read or written last, so that no turn decodes again what did not change.
//!
//! PROMISES
//!   A record counts for the very octets that the store holds now, whoever wrote them; of other octets it is made
//!   anew. So what is remembered here may be lost or old: that costs time, never state.
//!
//! LIMITS
//!   The naming contexts and one record for each connected site, once as octets and once decoded.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::directory::context::{self, ContextRecord};
use crate::directory::{Read, StoreError, Table, Write};
use crate::replication::peer::Peer;

/// Numbers of naming contexts, by their names in lower case, and where they stood last among the others.
pub type Places = HashMap<String, (u32, usize)>;

#[derive(Default)]
pub struct Records {
    /// Of each naming context, in the order of their numbers.
    octets: Vec<Vec<u8>>,
    contexts: Shared<Vec<ContextRecord>>,
    places: Shared<Places>,
    /// The octets of a site's record, and what they say unless a turn has it.
    peers: BTreeMap<String, (Vec<u8>, Option<Peer>)>,
}

impl Records {
    /// All naming contexts, by number.
    pub fn contexts(
        &mut self,
        read: &dyn Read,
    ) -> Result<(Shared<Vec<ContextRecord>>, Shared<Places>), StoreError> {
        let (mut count, mut news) = (0, Vec::new());
        read.scan(Table::Context, &[], &[0xff; 5], &mut |_, value| {
            if self.octets.get(count).is_none_or(|known| known != value) {
                news.push((count, value.to_vec()));
            }
            count += 1;
            true
        })?;
        if !news.is_empty() || count < self.octets.len() {
            self.renew(count, news).inspect_err(|_| *self = Records::default())?;
        }
        Ok((self.contexts.clone(), self.places.clone()))
    }

    fn renew(&mut self, count: usize, news: Vec<(usize, Vec<u8>)>) -> Result<(), StoreError> {
        self.octets.truncate(count);
        self.contexts.truncate(count);
        for (at, octets) in news {
            let record = context::decode(&octets)?;
            if at < self.octets.len() {
                (self.octets[at], self.contexts[at]) = (octets, record);
            } else {
                self.octets.push(octets);
                self.contexts.push(record);
            }
        }
        let place = |(at, record): (usize, &ContextRecord)| (place_name(record), (record.number, at));
        self.places = Shared(Arc::new(self.contexts.iter().enumerate().map(place).collect()));
        Ok(())
    }

    /// What the store holds of one site, or a blank record. It is the caller's; [`Records::store`] brings it back.
    pub fn peer(&mut self, read: &dyn Read, site: &str) -> Result<Peer, StoreError> {
        let Some(octets) = read.get(Table::Peer, site.as_bytes())? else {
            self.peers.remove(site);
            return Ok(Peer::default());
        };
        if let Some((known, peer)) = self.peers.get_mut(site)
            && *known == octets
            && let Some(peer) = peer.take()
        {
            return Ok(peer);
        }
        let peer = Peer::decode(&octets, site)?;
        self.peers.insert(site.to_owned(), (octets, None));
        Ok(peer)
    }

    /// Writes a site's record; the next turn finds it here.
    pub fn store(&mut self, tx: &mut dyn Write, site: &str, peer: Peer) -> Result<(), StoreError> {
        // Room beforehand: most records are as long as before.
        let room = self.peers.get(site).map_or(0, |(octets, _)| octets.len() + 64);
        let octets = peer.encode_with_room(room);
        tx.put(Table::Peer, site.as_bytes(), &octets)?;
        self.peers.insert(site.to_owned(), (octets, Some(peer)));
        Ok(())
    }
}

/// The name by which a naming context is found.
pub fn place_name(record: &ContextRecord) -> String {
    record.dn.to_string().to_ascii_lowercase()
}

/// Common to the turns of an engine, until one of them changes it: then that one has its own.
#[derive(Default)]
pub struct Shared<T>(Arc<T>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Shared(self.0.clone())
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<'s, T> IntoIterator for &'s Shared<Vec<T>> {
    type Item = &'s T;
    type IntoIter = std::slice::Iter<'s, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::directory::context::{create_context, put_context, remove_context};
    use crate::directory::dn::Dn;
    use crate::directory::memory::MemoryStore;

    fn create(store: &mut MemoryStore, name: &str) -> ContextRecord {
        let mut tx = store.begin();
        let dn = Dn::parse(&format!("ou={name},o=Org")).unwrap();
        let record = create_context(&mut tx, &dn, name, Uuid::from_u128(7)).unwrap();
        tx.commit();
        record
    }

    #[test]
    fn naming_contexts_are_as_the_store_has_them() {
        let mut store = MemoryStore::new();
        let mut records = Records::default();
        let mut check = |store: &MemoryStore| {
            let (contexts, places) = records.contexts(store).unwrap();
            assert_eq!(*contexts, context::contexts(store).unwrap());
            assert_eq!(places.len(), contexts.len());
            for (at, record) in contexts.iter().enumerate() {
                assert_eq!(places.get(&place_name(record)), Some(&(record.number, at)));
            }
            contexts
        };
        check(&store);
        let mut paris = create(&mut store, "Paris");
        let lab = create(&mut store, "Lab");
        let mut mine = check(&store);
        // What a turn makes of its own is not what the next one finds.
        mine[0].entries = 99;
        assert_eq!(check(&store)[0].entries, 0);
        paris.entries = 5;
        let mut tx = store.begin();
        put_context(&mut tx, &paris).unwrap();
        tx.commit();
        assert_eq!(check(&store)[0].entries, 5);
        let copy = store.clone();
        let mut tx = store.begin();
        remove_context(&mut tx, paris.number).unwrap();
        tx.commit();
        assert_eq!(check(&store)[0], lab);
        create(&mut store, "Rome");
        check(&store);
        assert_eq!(check(&copy)[0], paris, "a store that was put back");
    }

    #[test]
    fn a_sites_record_is_as_the_store_has_it() {
        let mut store = MemoryStore::new();
        let mut records = Records::default();
        let mut tx = store.begin();
        let mut peer = records.peer(&tx, "rome").unwrap();
        assert_eq!(peer, Peer::default());
        peer.sent_seq = 5;
        records.store(&mut tx, "rome", peer.clone()).unwrap();
        assert_eq!(records.peer(&tx, "rome").unwrap(), peer, "as it was written");
        assert_eq!(records.peer(&tx, "rome").unwrap(), peer, "taken and not brought back");
        records.store(&mut tx, "rome", peer.clone()).unwrap();
        drop(tx);
        assert_eq!(records.peer(&store, "rome").unwrap(), Peer::default(), "it was rolled back");
        let mut tx = store.begin();
        peer.sent_seq = 6;
        tx.put(Table::Peer, b"rome", &peer.encode()).unwrap();
        assert_eq!(records.peer(&tx, "rome").unwrap(), peer, "somebody else wrote it");
    }
}
