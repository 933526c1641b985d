//! What the masters held at every position, as their people saw it: the truth that replicas are held against.
//!
//! A history is a graph, for a master that was put back to an earlier day or copied goes on from an earlier point,
//! and takes back what it lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use bridgehead::directory::context::ContextRecord;
use bridgehead::directory::entry::{batch_of, from_batch};
use bridgehead::directory::memory::MemoryStore;
use bridgehead::directory::{Position, Read, Table, lookup};
use uuid::Uuid;

/// The raw records of a naming context: by the entry's key, which stands for its entryUUID, what the entry's octets hash to.
pub type State = Rc<BTreeMap<[u8; 16], u64>>;

/// What an entry says: where it hangs, its RDN, and what the values of its attributes hash to.
#[derive(PartialEq)]
pub struct Said {
    pub parent: [u8; 16],
    pub rdn: String,
    pub attributes: BTreeMap<String, BTreeSet<u64>>,
}

pub struct Node {
    pub state: State,
    /// Where the master stood before, and what it took back.
    pub parents: Vec<Position>,
}

#[derive(Default)]
pub struct History {
    nodes: HashMap<Position, Node>,
    /// By what its octets hash to.
    said: HashMap<u64, Said>,
}

impl History {
    /// False if the position was claimed before by another state.
    pub fn add(&mut self, position: Position, state: State, parents: Vec<Position>) -> bool {
        match self.nodes.get(&position) {
            Some(node) => node.state == state,
            None => {
                self.nodes.insert(position, Node { state, parents });
                true
            }
        }
    }

    /// Notes what the entries say that nobody had before.
    pub fn remember(&mut self, store: &MemoryStore, record: &ContextRecord, state: &State) {
        for (key, hash) in state.iter().filter(|(_, hash)| !self.said.contains_key(hash)).collect::<Vec<_>>()
        {
            let entry = lookup::entry(store, record.number, uuid_of(key));
            let entry = entry.expect("the store is sound").expect("it is in the state");
            let values = |values: &[Vec<u8>]| values.iter().map(hash_of).collect();
            let attributes = entry.attributes.iter();
            let said = Said {
                parent: key_of(entry.parent),
                rdn: entry.rdn.as_str().to_owned(),
                attributes: attributes.map(|a| (a.name().to_owned(), values(a.values()))).collect(),
            };
            self.said.insert(*hash, said);
        }
    }

    /// What an entry of a state that was remembered says.
    pub fn said(&self, state: &State, uuid: &[u8; 16]) -> Option<&Said> {
        self.said.get(state.get(uuid)?)
    }

    pub fn node(&self, position: &Position) -> Option<&Node> {
        self.nodes.get(position)
    }

    /// Whether a master that stood at `later` stood at `earlier` before, or took it back.
    pub fn leads(&self, earlier: &Position, later: &Position) -> bool {
        self.above(later).contains(earlier)
    }

    /// Every entry that this life of the master, or one that it took back, ever had up to `position`.
    pub fn ever(&self, position: &Position) -> BTreeSet<[u8; 16]> {
        let above = self.above(position);
        above.iter().filter_map(|at| self.node(at)).flat_map(|node| node.state.keys().copied()).collect()
    }

    /// Where the master stood on the way to `position`, and there.
    pub fn above(&self, position: &Position) -> BTreeSet<Position> {
        let mut seen = BTreeSet::new();
        let mut todo = vec![*position];
        while let Some(at) = todo.pop() {
            if seen.insert(at) {
                todo.extend(self.node(&at).into_iter().flat_map(|node| node.parents.iter().copied()));
            }
        }
        seen
    }
}

/// As the store sorts entries: by batch, then ordinal.
fn key_of(uuid: Uuid) -> [u8; 16] {
    let (batch, ordinal) = batch_of(uuid);
    let mut key = [0; 16];
    key[..12].copy_from_slice(&batch);
    key[12..].copy_from_slice(&ordinal.to_be_bytes());
    key
}

fn uuid_of(key: &[u8; 16]) -> Uuid {
    let (mut batch, mut ordinal) = ([0; 12], [0; 4]);
    batch.copy_from_slice(&key[..12]);
    ordinal.copy_from_slice(&key[12..]);
    from_batch(batch, u32::from_be_bytes(ordinal))
}

fn hash_of(value: &Vec<u8>) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// What a store holds of a naming context.
pub fn state(store: &MemoryStore, record: &ContextRecord) -> State {
    let mut found = BTreeMap::new();
    let (from, to) = (record.number.to_be_bytes(), (record.number + 1).to_be_bytes());
    store
        .scan(Table::Entry, &from, &to, &mut |key, value| {
            let mut hasher = DefaultHasher::new();
            (&key[4..], value).hash(&mut hasher);
            let mut uuid = [0; 16];
            uuid.copy_from_slice(&key[4..20]);
            found.insert(uuid, hasher.finish());
            true
        })
        .expect("the store is sound");
    Rc::new(found)
}
