//! What was acknowledged, lost with a restore, and is neither taken back nor told.
//!
//! Looks at three states of a master's naming context as its people saw them: where the two lives parted, what the partner has,
//! and what came of it. Every step of the other life must be in the last, or an event names the entry; what nobody
//! touched in this life must be in it, whatever is told.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bridgehead::directory::{ContextRecord, Dn, Position};
use bridgehead::replication::engine::Event;

use super::history::{History, Said, State};

/// Which entries of a naming context have conflicts.
pub struct Told {
    dns: BTreeSet<String>,
    /// And others.
    more: bool,
}

impl Told {
    pub fn of(events: &[Event], of: &str) -> Told {
        let dns = events.iter().filter_map(|event| match event {
            Event::Conflict { context, dn, .. } if context == of => Some(dn.clone()),
            _ => None,
        });
        let more =
            events.iter().any(|event| matches!(event, Event::Conflicts { context, .. } if context == of));
        Told { dns: dns.collect(), more }
    }

    fn names(&self, dn: &str) -> bool {
        self.more || self.dns.contains(dn)
    }
}

pub fn problem(
    history: &History,
    before: &Position,
    theirs: &Position,
    merged: &State,
    told: &Told,
    record: &ContextRecord,
) -> Option<String> {
    let (mine, other) = (history.above(before), history.above(theirs));
    let common: BTreeSet<Position> = mine.intersection(&other).copied().collect();
    let passed: BTreeSet<Position> =
        common.iter().filter_map(|at| history.node(at)).flat_map(|node| node.parents.clone()).collect();
    let parted: Vec<&Position> = common.difference(&passed).collect();
    let base = match parted[..] {
        [] => Rc::new(BTreeMap::new()),
        [at] => history.node(at)?.state.clone(),
        // Lives that were merged crosswise have no one point.
        _ => return None,
    };
    let theirs = history.node(theirs)?.state.clone();
    let nodes = mine.difference(&other).filter_map(|at| history.node(at));
    // Where a merge took something back, this life had not had it before: its log tells of all that came as of its own.
    let begun = nodes.clone().flat_map(|node| node.parents.iter().filter_map(|at| history.node(at)));
    let since: Vec<State> = begun.chain(nodes.clone()).map(|node| node.state.clone()).collect();
    // Where a full load took the place of the log, nobody knows what was touched.
    let reaches_back = parted.iter().all(|at| record.log_floor <= at.usn);
    let states = States { history, base, theirs, merged, since };
    let all: BTreeSet<&[u8; 16]> = states.base.keys().chain(states.theirs.keys()).collect();
    all.into_iter().filter(|uuid| states.base.get(*uuid) != states.theirs.get(*uuid)).find_map(|uuid| {
        let at = if merged.contains_key(uuid) { merged } else { &states.theirs };
        let dn = states.dn(at, uuid, &record.dn);
        let lost = states.lost(uuid).filter(|_| !told.names(&dn));
        let lost = lost.map(|what| format!("{what} of {dn} got lost and nobody says so"));
        lost.or_else(|| {
            let left = states.left(uuid).filter(|_| reaches_back);
            left.map(|what| format!("{what} of {dn}, which nobody touched, got lost"))
        })
    })
}

struct States<'h> {
    history: &'h History,
    base: State,
    theirs: State,
    merged: &'h State,
    /// What this life held since they parted, and what each step of it began with.
    since: Vec<State>,
}

impl States<'_> {
    /// What the other life did to an entry and is not there.
    fn lost(&self, uuid: &[u8; 16]) -> Option<String> {
        let said = |state| self.history.said(state, uuid);
        match (said(&self.base), said(&self.theirs), said(self.merged)) {
            (_, None, Some(_)) => Some("the deletion".into()),
            (_, Some(_), None) => Some("what became".into()),
            (_, None, None) => None,
            (base, Some(theirs), Some(merged)) => {
                if let Some(base) = base.filter(|base| !same_name(base, theirs))
                    && merged.rdn != theirs.rdn
                {
                    return Some(format!("the name after {}", base.rdn));
                }
                let none = BTreeSet::new();
                let values = |said: Option<&'_ Said>, name: &str| {
                    said.and_then(|said| said.attributes.get(name)).unwrap_or(&none).clone()
                };
                let names = base.into_iter().chain([theirs]).flat_map(|said| said.attributes.keys());
                let names: BTreeSet<&String> = names.collect();
                let lost = |name: &&String| {
                    let (base, theirs) = (values(base, name), values(Some(theirs), name));
                    let merged = values(Some(merged), name);
                    !(&theirs - &base).is_subset(&merged) || !(&base - &theirs).is_disjoint(&merged)
                };
                names.into_iter().find(lost).cloned()
            }
        }
    }

    /// An attribute that only the other life touched, of an entry that nobody renamed, and is not as that left it.
    fn left(&self, uuid: &[u8; 16]) -> Option<String> {
        let said = |state| self.history.said(state, uuid);
        let (base, theirs, merged) = (said(&self.base)?, said(&self.theirs)?, said(self.merged)?);
        let since: Option<Vec<&Said>> = self.since.iter().map(said).collect();
        let since = since?;
        if ![theirs, merged].into_iter().chain(since.iter().copied()).all(|said| same_name(base, said)) {
            return None;
        }
        let names: BTreeSet<&String> = base.attributes.keys().chain(theirs.attributes.keys()).collect();
        let left = |name: &&String| {
            let of = |said: &Said| said.attributes.get(*name).cloned();
            since.iter().all(|said| of(said) == of(base)) && of(merged) != of(theirs)
        };
        names.into_iter().find(left).cloned()
    }

    fn dn(&self, state: &State, uuid: &[u8; 16], context: &Dn) -> String {
        let (mut rdns, mut at) = (Vec::new(), *uuid);
        while let Some(said) = self.history.said(state, &at) {
            rdns.push(said.rdn.clone());
            at = said.parent;
        }
        rdns.extend(context.rdns()[1..].iter().map(|rdn| rdn.as_str().to_owned()));
        rdns.join(",")
    }
}

fn same_name(one: &Said, other: &Said) -> bool {
    (&one.parent, &one.rdn) == (&other.parent, &other.rdn)
}
