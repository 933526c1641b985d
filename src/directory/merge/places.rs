//! Where the entries of two states of a naming context hang when they are one.
//!
//! PROMISES
//!   It begins with everything that is to change and takes back what does not fit, until all fits: each entry beneath one
//!   that is there, no name twice, no circle, none too deep. Taking back leads towards the state that was here,
//!   which is sound, and happens to each entry once: so it ends, and it does not matter how much does not fit.
//!   Names may be exchanged. What belongs beneath an entry that stays away, for it was deleted here or another has its name,
//!   goes beneath the one that has the name.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use super::Kept;
use crate::limits::DN_DEPTH_MAX;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    parent: Uuid,
    rdn: String,
    normalized: Vec<u8>,
}

impl Place {
    pub(super) fn new(parent: Uuid, rdn: &str, normalized: Vec<u8>) -> Place {
        Place { parent, rdn: rdn.to_owned(), normalized }
    }

    /// However the RDN is spelled.
    pub(super) fn is(&self, (parent, normalized): &(Uuid, Vec<u8>)) -> bool {
        self.parent == *parent && self.normalized == *normalized
    }
}

/// Where an entry is to hang.
pub(super) struct Placed {
    pub parent: Uuid,
    /// It has the name that it has there, and otherwise the one that it has here.
    pub is_theirs: bool,
}

/// What is to become of an entry that is not simply to stay where it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// From there, anew.
    Comes,
    /// To the name that it has there.
    Moves,
    Leaves,
    /// It was to move or leave, and stays.
    Back,
    /// It was to come, and does not.
    Away,
}

enum Todo {
    Place(Uuid),
    /// To the name that it has here.
    Return(Uuid),
}

pub(super) struct Plan {
    pub here: BTreeMap<Uuid, Place>,
    pub there: BTreeMap<Uuid, Place>,
    /// RDNs above the topmost entry.
    above: usize,
    wishes: BTreeMap<Uuid, Wish>,
    /// Who comes for the sake of what is beneath it, and gives way: it was deleted here.
    deleted: BTreeSet<Uuid>,
    /// Who has a name: parent and normalized RDN.
    taken: HashMap<(Uuid, Vec<u8>), Uuid>,
    /// The parent beneath which an entry has the name that it has there.
    beneath: HashMap<Uuid, Uuid>,
    /// Who has the name of an entry that stays away.
    instead: HashMap<Uuid, Uuid>,
    /// Who is to hang beneath an entry as it does there.
    below: HashMap<Uuid, Vec<Uuid>>,
    todo: Vec<Todo>,
}

/// Circles are broken one entry at a time so often; then whatever was to get another parent stays where it was.
const ROUNDS_MAX: usize = 16;

impl Plan {
    pub(super) fn new(here: BTreeMap<Uuid, Place>, there: BTreeMap<Uuid, Place>, above: usize) -> Plan {
        Plan {
            here,
            there,
            above,
            wishes: BTreeMap::new(),
            deleted: BTreeSet::new(),
            taken: HashMap::new(),
            beneath: HashMap::new(),
            instead: HashMap::new(),
            below: HashMap::new(),
            todo: Vec::new(),
        }
    }

    pub(super) fn comes(&mut self, uuid: Uuid) {
        self.wishes.insert(uuid, Wish::Comes);
    }

    pub(super) fn stays_deleted(&mut self, uuid: Uuid) {
        self.comes(uuid);
        self.deleted.insert(uuid);
    }

    pub(super) fn moves(&mut self, uuid: Uuid) {
        self.wishes.insert(uuid, Wish::Moves);
    }

    pub(super) fn leaves(&mut self, uuid: Uuid) {
        self.wishes.insert(uuid, Wish::Leaves);
    }

    /// None: it is not among them.
    pub(super) fn place(&self, uuid: Uuid) -> Option<Placed> {
        match self.wishes.get(&uuid) {
            None | Some(Wish::Back) => {
                let parent = self.here.get(&uuid)?.parent;
                Some(Placed { parent, is_theirs: false })
            }
            Some(Wish::Comes | Wish::Moves) => {
                let parent = self.standing(self.there.get(&uuid)?.parent);
                Some(Placed { parent, is_theirs: true })
            }
            Some(Wish::Leaves | Wish::Away) => None,
        }
    }

    pub(super) fn leaving(&self) -> impl Iterator<Item = Uuid> {
        self.wishes.iter().filter(|(_, wish)| **wish == Wish::Leaves).map(|(uuid, _)| *uuid)
    }

    /// Takes back what does not fit, and says of each entry why.
    pub(super) fn settle(&mut self, keep: &mut dyn FnMut(Uuid, Kept)) {
        let staying: Vec<Uuid> =
            self.here.keys().filter(|uuid| !self.wishes.contains_key(uuid)).copied().collect();
        for uuid in staying {
            let place = &self.here[&uuid];
            let parent = place.parent;
            self.taken.insert((parent, place.normalized.clone()), uuid);
            self.needs(parent, keep);
        }
        self.work(keep);
        let theirs = self.wishes.iter().filter(|(_, wish)| matches!(wish, Wish::Comes | Wish::Moves));
        let theirs: Vec<Uuid> = theirs.map(|(uuid, _)| *uuid).collect();
        for uuid in &theirs {
            self.below.entry(self.there[uuid].parent).or_default().push(*uuid);
        }
        // Parents first, for whose name is taken decides where others go; the last is done first.
        let mut by_depth: Vec<(usize, Uuid)> =
            theirs.into_iter().map(|uuid| (self.depth_there(uuid), uuid)).collect();
        by_depth.sort_by(|a, b| b.cmp(a));
        self.todo = by_depth.into_iter().map(|(_, uuid)| Todo::Place(uuid)).collect();
        self.work(keep);
        for round in 0.. {
            let astray = self.astray(round >= ROUNDS_MAX);
            if astray.is_empty() {
                return;
            }
            for uuid in astray {
                self.give_up(uuid, Kept::Astray, None, keep);
            }
            self.work(keep);
        }
    }

    fn work(&mut self, keep: &mut dyn FnMut(Uuid, Kept)) {
        while let Some(todo) = self.todo.pop() {
            match todo {
                Todo::Place(uuid) => self.put(uuid, keep),
                Todo::Return(uuid) => self.put_back(uuid, keep),
            }
        }
    }

    /// To the name that it has there, if it may.
    fn put(&mut self, uuid: Uuid, keep: &mut dyn FnMut(Uuid, Kept)) {
        let Some(Placed { parent, is_theirs: true }) = self.place(uuid) else { return };
        let is_deleted = self.deleted.contains(&uuid);
        if !parent.is_nil() && self.place(parent).is_none() {
            let why = if is_deleted { Kept::Deleted } else { Kept::NoParent };
            return self.give_up(uuid, why, None, keep);
        }
        let name = (parent, self.there[&uuid].normalized.clone());
        match self.taken.get(&name) {
            by if is_deleted => self.give_up(uuid, Kept::Deleted, by.copied(), keep),
            Some(by) if *by == uuid => {}
            Some(by) => self.give_up(uuid, Kept::NameTaken, Some(*by), keep),
            None => {
                self.taken.insert(name, uuid);
                self.beneath.insert(uuid, parent);
            }
        }
    }

    /// To the name that it has here: whoever was to have that gives way.
    fn put_back(&mut self, uuid: Uuid, keep: &mut dyn FnMut(Uuid, Kept)) {
        let place = &self.here[&uuid];
        let (parent, name) = (place.parent, (place.parent, place.normalized.clone()));
        if let Some(by) = self.taken.insert(name, uuid).filter(|by| *by != uuid) {
            self.beneath.remove(&by);
            self.give_up(by, Kept::NameTaken, Some(uuid), keep);
        }
        self.needs(parent, keep);
    }

    /// Somebody stays beneath this entry.
    fn needs(&mut self, uuid: Uuid, keep: &mut dyn FnMut(Uuid, Kept)) {
        if self.wishes.get(&uuid) == Some(&Wish::Leaves) {
            keep(uuid, Kept::NotLeaf);
            self.wishes.insert(uuid, Wish::Back);
            self.todo.push(Todo::Return(uuid));
        }
    }

    fn give_up(&mut self, uuid: Uuid, why: Kept, by: Option<Uuid>, keep: &mut dyn FnMut(Uuid, Kept)) {
        keep(uuid, why);
        self.lift(uuid);
        if self.wishes.get(&uuid) == Some(&Wish::Moves) {
            self.wishes.insert(uuid, Wish::Back);
            self.todo.push(Todo::Return(uuid));
            return;
        }
        self.wishes.insert(uuid, Wish::Away);
        let children = self.below.remove(&uuid).unwrap_or_default();
        if let Some(by) = by {
            self.instead.insert(uuid, by);
            self.below.entry(by).or_default().extend(&children);
        }
        for child in children {
            if matches!(self.wishes.get(&child), Some(Wish::Comes | Wish::Moves)) {
                self.lift(child);
                self.todo.push(Todo::Place(child));
            }
        }
    }

    /// Its name is free again.
    fn lift(&mut self, uuid: Uuid) {
        if let Some(parent) = self.beneath.remove(&uuid) {
            self.taken.remove(&(parent, self.there[&uuid].normalized.clone()));
        }
    }

    /// The entry, or who has its name. Who stays away does so for good, and whoever stood for him was there then: no circle.
    fn standing(&self, uuid: Uuid) -> Uuid {
        let mut at = uuid;
        while let (Some(Wish::Away), Some(by)) = (self.wishes.get(&at), self.instead.get(&at)) {
            at = *by;
        }
        at
    }

    fn depth_there(&self, uuid: Uuid) -> usize {
        let mut at = self.there[&uuid].parent;
        let mut depth = 0;
        while let (Some(place), true) = (self.there.get(&at), depth <= DN_DEPTH_MAX) {
            at = place.parent;
            depth += 1;
        }
        depth
    }

    /// Who is to give way, for entries that would not reach the topmost one in few enough steps; `all`: whoever may.
    fn astray(&self, all: bool) -> BTreeSet<Uuid> {
        let mut depths = HashMap::from([(Uuid::nil(), self.above)]);
        let mut found = BTreeSet::new();
        for uuid in self.here.keys().chain(self.wishes.keys()) {
            let mut path = Vec::new();
            let mut at = *uuid;
            let depth = loop {
                if let Some(depth) = depths.get(&at) {
                    break depth + path.len();
                }
                let Some(placed) = self.place(at).filter(|_| path.len() <= DN_DEPTH_MAX) else {
                    break if path.is_empty() { 0 } else { usize::MAX };
                };
                path.push(at);
                at = placed.parent;
            };
            if depth <= DN_DEPTH_MAX {
                let known = path.iter().enumerate().map(|(n, uuid)| (*uuid, depth - n));
                depths.extend(known);
            } else if !path.iter().any(|uuid| found.contains(uuid)) {
                found.extend(self.to_blame(&path));
            }
        }
        if all && !found.is_empty() {
            found.extend(self.wishes.keys().filter(|uuid| self.has_other_parent(uuid)));
        }
        found
    }

    /// The last in the path is in the circle, or nearest to the top.
    fn to_blame(&self, path: &[Uuid]) -> Option<Uuid> {
        let back = path.iter().rev();
        let moved = back.clone().find(|uuid| self.has_other_parent(uuid));
        let theirs = || path.iter().find(|uuid| self.wishes.get(*uuid) == Some(&Wish::Comes));
        moved.or_else(theirs).copied()
    }

    fn has_other_parent(&self, uuid: &Uuid) -> bool {
        let place = self.place(*uuid).filter(|_| self.wishes.get(uuid) == Some(&Wish::Moves));
        place.is_some_and(|place| self.here.get(uuid).is_some_and(|here| here.parent != place.parent))
    }
}
