//! What the masters held at every position, as their people saw it: the truth that replicas are held against.
//!
//! A history is a graph, for a master that was put back to an earlier day or copied goes on from an earlier point,
//! and takes back what it lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use bridgehead::directory::context::ContextRecord;
use bridgehead::directory::memory::MemoryStore;
use bridgehead::directory::{Position, Read, Table};

/// The raw records of a naming context: by entryUUID what the entry's octets hash to.
pub type State = Rc<BTreeMap<[u8; 16], u64>>;

pub struct Node {
    pub state: State,
    /// Where the master stood before, and what it took back.
    pub parents: Vec<Position>,
}

#[derive(Default)]
pub struct History {
    nodes: HashMap<Position, Node>,
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

    fn above(&self, position: &Position) -> BTreeSet<Position> {
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
