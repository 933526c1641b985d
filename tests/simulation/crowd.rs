//! A group of many members, of whom some come and some go: an attribute that changes value by value.
//!
//! It has chance of its own, so that all else in the world of a seed stays what it was before there was such a group.

use std::collections::BTreeSet;

use bridgehead::directory::attributes::Attributes;
use bridgehead::directory::change::{Change, Modification, Operation};
use bridgehead::directory::dn::Dn;
use bridgehead::directory::log::{Touched, touched_back};

use super::cases::two_equal_sites;
use super::dice::Dice;
use super::world::{HOUR, World};

/// Knows who is in it, so that its changes are sound.
#[derive(Clone)]
pub struct Crowd {
    dice: Dice,
    members: BTreeSet<String>,
    next: u64,
}

impl Crowd {
    pub fn new(seed: u64) -> Crowd {
        Crowd { dice: Dice::new(seed), members: BTreeSet::new(), next: 0 }
    }

    /// What one commit changes in it, if anything. `people`: names of entries that are there.
    pub fn next(&mut self, context: &str, people: &[Dn]) -> Option<Change> {
        if !self.dice.percent(40) {
            return None;
        }
        let name = Dn::parse(&format!("{NAME},{context}")).expect("a sound name");
        if self.members.is_empty() {
            let members = (0..MEMBERS_FIRST).map(|_| self.somebody(context, people)).collect();
            self.members = members;
            return Some(Change::Add { dn: name, uuid: None, attributes: self.attributes() });
        }
        let few = self.members.len() < MEMBERS_FIRST / 2 + 10;
        let (goes, comes) = match self.dice.below(6) {
            0 | 1 => (0, self.dice.between(1, 3)),
            2 | 3 if !few => (self.dice.between(1, 3), 0),
            _ if few => (0, 10),
            _ => (1, 1),
        };
        let gone: Vec<String> = (0..goes).filter_map(|_| self.leave()).collect();
        let come: Vec<String> =
            (0..comes).map(|_| self.somebody(context, people)).collect::<BTreeSet<_>>().into_iter().collect();
        let come: Vec<String> = come.into_iter().filter(|member| !gone.contains(member)).collect();
        self.members.extend(come.iter().cloned());
        if self.dice.percent(20) {
            // Read out of another directory, in the order of that one.
            return Some(Change::Put { dn: name, uuid: None, attributes: self.attributes() });
        }
        let modification = |operation, members: Vec<String>| Modification {
            operation,
            attribute: MEMBER.into(),
            values: members.into_iter().map(String::into_bytes).collect(),
        };
        let modifications = [(Operation::Delete, gone), (Operation::Add, come)].into_iter();
        let modifications = modifications.filter(|(_, members)| !members.is_empty());
        let modifications: Vec<_> =
            modifications.map(|(what, members)| modification(what, members)).collect();
        (!modifications.is_empty()).then_some(Change::Modify { dn: name, modifications })
    }

    /// An entry that is there: whether it is this group, and who is in it.
    pub fn learn(&mut self, name: &str, attributes: &Attributes) {
        if name == NAME {
            let members = attributes.values(MEMBER).iter();
            self.members = members.map(|member| String::from_utf8_lossy(member).into_owned()).collect();
        }
    }

    /// Before [`Crowd::learn`]: nothing is known.
    pub fn forget(&mut self) {
        self.members.clear();
        self.next += 1000;
    }

    /// Somebody who is not in it; every other time an entry: such a value travels as an entry's number.
    fn somebody(&mut self, context: &str, people: &[Dn]) -> String {
        let entry = self.dice.percent(50) && !people.is_empty();
        let person = if entry { Some(self.dice.pick(people).to_string()) } else { None };
        self.next += 1;
        // Anywhere in their order.
        let guest = format!("cn=Guest {:04} {},{context}", self.dice.below(10_000), self.next);
        person.filter(|person| !self.members.contains(person)).unwrap_or(guest)
    }

    fn leave(&mut self) -> Option<String> {
        let at = self.dice.below(self.members.len() as u64) as usize;
        let member = self.members.iter().nth(at).cloned()?;
        self.members.remove(&member);
        Some(member)
    }

    fn attributes(&self) -> Attributes {
        let members = self.members.iter().map(|member| (MEMBER, member.clone()));
        let pairs = [("objectClass", "groupOfUniqueNames".to_owned()), ("cn", "crowd".to_owned())];
        let pairs = pairs.into_iter().chain(members).map(|(name, value)| (name, value.into_bytes()));
        Attributes::from_pairs(pairs).expect("sound attributes")
    }
}

const NAME: &str = "cn=crowd";
const MEMBER: &str = "uniqueMember";
/// Well above those that go as a whole.
const MEMBERS_FIRST: usize = 80;

/// The worlds would be blind to what becomes of single values if all attributes travelled whole.
#[test]
fn single_values_travel_in_the_worlds() {
    let mut world = two_equal_sites(|knobs| knobs.commits = 150);
    world.work(0, 0);
    assert!(world.run(world.now + HOUR, World::equal));
    let own = world.sites[0].own();
    let all = bridgehead::directory::context::contexts(&world.sites[1].store).unwrap();
    let replica = all.into_iter().find(|record| record.dn == own.dn).unwrap();
    let (mut values, mut whole) = (0, 0);
    touched_back(&world.sites[1].store, replica.number, &mut |_, touched| {
        match touched {
            Touched::Value(_, name, _) if name == MEMBER => values += 1,
            Touched::Attribute(_, name) if name == MEMBER => whole += 1,
            _ => {}
        }
        true
    })
    .unwrap();
    assert!(values > 5 && whole == 0, "{values} values, and the attribute {whole} times");
}
