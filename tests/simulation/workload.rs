//! What the people of one site do to their directory: additions, changes, renames, moves, deletions.

use bridgehead::directory::attributes::Attribute;
use bridgehead::directory::change::{Change, Modification, Operation};
use bridgehead::directory::context::ContextRecord;
use bridgehead::directory::dn::{Dn, Rdn};
use bridgehead::directory::entry::Attributes;
use bridgehead::directory::lookup;
use bridgehead::directory::memory::MemoryStore;

use super::crowd::Crowd;
use super::dice::Dice;

/// Knows which entries there are, so that its changes are sound.
#[derive(Clone)]
pub struct Workload {
    context: String,
    people: Vec<(String, String)>,
    units: Vec<String>,
    group: bool,
    crowd: Crowd,
    next: u64,
    condemned: usize,
}

impl Workload {
    /// `seed`: for what has chance of its own.
    pub fn new(context: &str, seed: u64) -> Workload {
        Workload {
            context: context.into(),
            people: Vec::new(),
            units: Vec::new(),
            group: false,
            crowd: Crowd::new(seed),
            next: 0,
            condemned: 0,
        }
    }

    /// The next commit deletes so many people.
    pub fn condemn(&mut self, count: usize) {
        self.condemned = count.min(self.people.len());
    }

    /// The changes of one commit.
    pub fn next(&mut self, dice: &mut Dice) -> Vec<Change> {
        if self.condemned > 0 {
            let count = std::mem::take(&mut self.condemned);
            return (0..count).map(|_| self.delete(dice)).collect();
        }
        let many = if dice.percent(10) { dice.between(5, 30) } else { dice.between(1, 3) };
        let mut changes: Vec<Change> = (0..many).map(|_| self.one(dice)).collect();
        let people: Vec<Dn> = self.people.iter().map(|person| self.dn(person)).collect();
        changes.extend(self.crowd.next(&self.context, &people));
        changes
    }

    /// Finds out which entries there are.
    pub fn learn(&mut self, store: &MemoryStore, record: &ContextRecord) {
        self.people.clear();
        self.units.clear();
        self.crowd.forget();
        let mut found = Vec::new();
        lookup::scan_entries(store, record.number, &mut |entry| {
            found.push((entry.uuid, entry.attributes));
            true
        })
        .expect("the store is sound");
        for (uuid, attributes) in found {
            let dn = lookup::dn_of(store, record, uuid).expect("the store is sound").expect("it has a name");
            let value =
                |dn: &Dn| dn.rdn().as_str().split_once('=').map(|(_, v)| v.to_owned()).unwrap_or_default();
            let above = dn.parent().filter(|above| !above.matches(&record.dn)).map(|above| value(&above));
            self.crowd.learn(dn.rdn().as_str(), &attributes);
            match attributes.text("objectClass") {
                Some("inetOrgPerson") => self.people.push((value(&dn), above.unwrap_or_default())),
                Some("organizationalUnit") if !dn.matches(&record.dn) => self.units.push(value(&dn)),
                Some("groupOfNames") => self.group = true,
                _ => {}
            }
        }
        self.next += 1000;
    }

    /// Many people at once, with photographs, which do not compress.
    pub fn bulk(&mut self, dice: &mut Dice, people: u64) -> Vec<Change> {
        let with_photo = |change: Change, dice: &mut Dice| match change {
            Change::Add { dn, uuid, mut attributes } => {
                let photo: Vec<u8> = (0..600).map(|_| dice.next() as u8).collect();
                let photo = Attribute::new("jpegPhoto", vec![photo]).expect("a sound attribute");
                attributes.set(photo).expect("room for one more");
                Change::Add { dn, uuid, attributes }
            }
            other => other,
        };
        (0..people)
            .map(|_| self.add(dice))
            .collect::<Vec<_>>()
            .into_iter()
            .map(|c| with_photo(c, dice))
            .collect()
    }

    fn one(&mut self, dice: &mut Dice) -> Change {
        match dice.below(20) {
            0..=6 => self.add(dice),
            7..=11 => self.modify(dice),
            12..=13 => self.rename(dice),
            14..=16 => self.delete(dice),
            17 => self.unit(),
            18 => self.marker(),
            _ => self.member(dice),
        }
    }

    fn above(&self, unit: &str) -> String {
        if unit.is_empty() { self.context.clone() } else { format!("ou={unit},{}", self.context) }
    }

    fn dn(&self, (name, unit): &(String, String)) -> Dn {
        dn(&format!("cn={name},{}", self.above(unit)))
    }

    /// An entry that nobody changes or deletes: it must never get lost.
    fn marker(&mut self) -> Change {
        self.next += 1;
        let name = format!("Marker {}", self.next);
        let attributes = attributes(&[("objectClass", "device"), ("cn", &name)]);
        Change::Add { dn: dn(&format!("cn={name},{}", self.context)), uuid: None, attributes }
    }

    /// A new unit; every third time one that is there gets another name, and with it everybody beneath.
    fn unit(&mut self) -> Change {
        self.next += 1;
        let name = format!("Abteilung {}", self.next);
        if self.next.is_multiple_of(3) && !self.units.is_empty() {
            let at = self.next as usize % self.units.len();
            let old = std::mem::replace(&mut self.units[at], name.clone());
            self.people
                .iter_mut()
                .filter(|(_, unit)| *unit == old)
                .for_each(|(_, unit)| *unit = name.clone());
            let new_rdn = Rdn::parse(&format!("ou={name}")).expect("a sound name");
            return Change::Rename {
                dn: dn(&self.above(&old)),
                new_rdn,
                delete_old_rdn: true,
                new_superior: None,
            };
        }
        self.units.push(name.clone());
        let attributes = attributes(&[("objectClass", "organizationalUnit"), ("ou", &name)]);
        Change::Add { dn: dn(&format!("ou={name},{}", self.context)), uuid: None, attributes }
    }

    fn place(&self, dice: &mut Dice) -> String {
        if self.units.is_empty() || dice.percent(50) { String::new() } else { dice.pick(&self.units).clone() }
    }

    fn add(&mut self, dice: &mut Dice) -> Change {
        self.next += 1;
        let person = (format!("Zoë Example {}", self.next), self.place(dice));
        let change = Change::Add {
            dn: self.dn(&person),
            uuid: None,
            attributes: attributes(&[
                ("objectClass", "inetOrgPerson"),
                ("cn", &person.0),
                ("sn", "Example"),
                ("mail", &format!("zoe{}@example.org", self.next)),
                ("telephoneNumber", &format!("+49 30 {}", dice.below(1_000_000))),
            ]),
        };
        self.people.push(person);
        change
    }

    fn modify(&mut self, dice: &mut Dice) -> Change {
        if self.people.is_empty() {
            return self.add(dice);
        }
        let person = dice.pick(&self.people).clone();
        let value = match dice.below(4) {
            0 => vec![],
            1 => vec!["a note ".repeat(dice.below(200) as usize + 1).into_bytes()],
            _ => vec![format!("{}", dice.next()).into_bytes()],
        };
        let attribute = if dice.percent(50) { "description" } else { "roomNumber" };
        let modification =
            Modification { operation: Operation::Replace, attribute: attribute.into(), values: value };
        Change::Modify { dn: self.dn(&person), modifications: vec![modification] }
    }

    fn rename(&mut self, dice: &mut Dice) -> Change {
        if self.people.is_empty() {
            return self.add(dice);
        }
        self.next += 1;
        let at = dice.below(self.people.len() as u64) as usize;
        let old = self.dn(&self.people[at]);
        let name = format!("Renée Renamed {}", self.next);
        let unit = self.place(dice);
        let new_superior = Some(dn(&self.above(&unit)));
        let new_rdn = Rdn::parse(&format!("cn={name}")).expect("a sound name");
        self.people[at] = (name, unit);
        Change::Rename { dn: old, new_rdn, delete_old_rdn: true, new_superior }
    }

    fn delete(&mut self, dice: &mut Dice) -> Change {
        if self.people.is_empty() {
            return self.add(dice);
        }
        let at = dice.below(self.people.len() as u64) as usize;
        let person = self.people.swap_remove(at);
        Change::Delete { dn: self.dn(&person) }
    }

    fn member(&mut self, dice: &mut Dice) -> Change {
        if !self.group {
            self.group = true;
            let members: Vec<(&str, String)> =
                (0..40).map(|n| ("member", format!("cn=Member {n},{}", self.context))).collect();
            let mut pairs = vec![("objectClass", "groupOfNames".to_owned()), ("cn", "everybody".to_owned())];
            pairs.extend(members);
            let attributes = Attributes::from_pairs(pairs.into_iter().map(|(n, v)| (n, v.into_bytes())));
            return Change::Add {
                dn: dn(&format!("cn=everybody,{}", self.context)),
                uuid: None,
                attributes: attributes.expect("sound attributes"),
            };
        }
        self.next += 1;
        let somebody = format!("cn=Member {},{}", self.next + dice.below(3), self.context);
        // Every other time somebody who is there: such a value travels as an entry's number.
        let there = self.people.get(self.next as usize / 2 % self.people.len().max(1));
        let there = there.filter(|_| self.next.is_multiple_of(2)).map(|person| self.dn(person).to_string());
        let value = there.unwrap_or(somebody).into_bytes();
        let modifications = vec![Modification {
            operation: Operation::Replace,
            attribute: "owner".into(),
            values: vec![value],
        }];
        Change::Modify { dn: dn(&format!("cn=everybody,{}", self.context)), modifications }
    }
}

fn dn(text: &str) -> Dn {
    Dn::parse(text).expect("a sound name")
}

fn attributes(pairs: &[(&str, &str)]) -> Attributes {
    let pairs = pairs.iter().map(|(name, value)| (*name, value.as_bytes().to_vec()));
    Attributes::from_pairs(pairs).expect("sound attributes")
}
