//! A naming context of 21,000 entries: increments say the same of the last of them as of the first; a group of 5,000
//! members: one more costs what any change costs.
//!
//! What an increment touches it names by rank, which other tests with their few hundred entries see only the beginning of.

use bridgehead::directory::attributes::Attributes;
use bridgehead::directory::change::{Change, Modification, Operation};
use bridgehead::directory::commit::Commit;
use bridgehead::directory::context::{context_by_number, create_context};
use bridgehead::directory::dn::{Dn, Rdn};
use bridgehead::directory::export::{Options, export};
use bridgehead::directory::import::import;
use bridgehead::directory::memory::MemoryStore;
use bridgehead::directory::{ContextRecord, Position, Read};
use bridgehead::replication::checkpoint::Checkpoint;
use bridgehead::replication::transfer::{apply, encode};
use ed25519_dalek::SigningKey;
use uuid::Uuid;

const PEOPLE: usize = 21_000;

struct Sites {
    master: MemoryStore,
    replica: MemoryStore,
    commits: u8,
}

#[test]
fn increments_reach_the_last_of_many_entries() {
    let mut sites = Sites { master: empty(), replica: empty(), commits: 0 };
    let guests = add("ou=Guests,o=Large", "organizationalUnit", &[]);
    sites.commit(
        [add("o=Large", "organization", &[])].into_iter().chain((0..PEOPLE).map(person)).chain([guests]),
    );
    let unit = add("ou=Staff,o=Large", "organizationalUnit", &[]);
    sites.commit([unit]);
    // Few at a time: each rank is looked up by itself.
    for at in [5, 8_995, 9_005, 15_005, PEOPLE - 5] {
        sites.commit([note(at, "changed")]);
        sites.commit([moved(at, "ou=Staff,o=Large")]);
        let boss = format!("uid=p{at:05},ou=Staff,o=Large");
        let name = format!("uid=new{at},{boss}");
        sites.commit([add(&name, "person", &[("manager", &boss)])]);
        sites.commit([Change::Delete { dn: dn(&name) }, Change::Delete { dn: dn(&boss) }]);
    }
    // Many: all ranks are made at once, on either side.
    sites.commit((0..PEOPLE).step_by(40).map(|at| note(at, "many")));
    sites.commit((1..PEOPLE).step_by(40).map(|at| Change::Delete { dn: dn(&name(at)) }));
    sites.commit((2..PEOPLE).step_by(40).map(|at| moved(at, "ou=Staff,o=Large")));
    // Units get other names, and values name who is beneath them, of entries before the unit and behind it.
    sites.commit([moved(6, "ou=Guests,o=Large")]);
    for (unit, other, beneath) in [("Staff", "People", 2), ("Guests", "Visitors", 6)] {
        let (old, new_rdn) = (dn(&format!("ou={unit},o=Large")), Rdn::parse(&format!("ou={other}")).unwrap());
        let unit = Change::Rename { dn: old, new_rdn, delete_old_rdn: true, new_superior: None };
        let name = format!("uid=p{beneath:05},ou={other},o=Large");
        sites.commit([unit].into_iter().chain((3..800).step_by(40).map(|at| set(at, "manager", &name))));
    }
}

/// Whoever reads a directory out of another every night writes it in that one's order.
#[test]
fn one_member_of_many_costs_the_same_wherever_it_is_written() {
    // Names that do not compress to nothing.
    let name =
        |n: u64| format!("uid={:09x},ou=Elsewhere,o=Large", n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 28);
    let group = |members: &[String]| {
        let members: String = members.iter().map(|member| format!("member: {member}\n")).collect();
        format!("dn: cn=everybody,o=Large\nobjectClass: groupOfNames\ncn: everybody\n{members}")
    };
    let mut all: Vec<String> = (0..5_000).map(name).collect();
    all.sort();
    let mut sites = Sites { master: empty(), replica: empty(), commits: 0 };
    let full = sites.import(&group(&all));
    assert!(full > 20_000, "{full} octets for everybody");
    let new = all[2_500].clone() + "x";
    all.insert(2_500, new.clone());
    let added = sites.import(&group(&all));
    assert!(added < 1 << 10, "{added} octets for one more in the middle");
    let gone = all.remove(42);
    let less = sites.import(&group(&all));
    assert!(less < 1 << 10, "{less} octets for one less");
    // The other way round it is the same set.
    let before = record(&sites.master).position;
    all.reverse();
    sites.load(&group(&all));
    assert_eq!(record(&sites.master).position, before);
    let (ours, theirs) = (exported(&sites.master), exported(&sites.replica));
    assert!(ours == theirs, "the replica has the master's octets");
    let members: Vec<&str> = ours.lines().filter_map(|line| line.strip_prefix("member: ")).collect();
    assert_eq!((members.len(), members.last()), (5_000, Some(&new.as_str())));
    assert!(!members.contains(&gone.as_str()));
}

impl Sites {
    /// A file of LDIF at the master, and the replica after it; how many octets that took.
    fn import(&mut self, text: &str) -> usize {
        let base = record(&self.master).position;
        self.load(text);
        self.follow(base)
    }

    fn load(&mut self, text: &str) {
        self.commits += 1;
        let mut tx = self.master.begin();
        import(&mut tx, 1, [self.commits; 12], text.as_bytes(), &|_| true, &mut |_| {}).unwrap();
        tx.commit();
    }

    /// A commit of the master's, and the replica after it.
    fn commit(&mut self, changes: impl IntoIterator<Item = Change>) {
        let base = record(&self.master).position;
        self.commits += 1;
        let mut tx = self.master.begin();
        let mut commit = Commit::begin(&mut tx, 1, [self.commits; 12]).unwrap();
        for change in changes {
            commit.apply(&change).unwrap();
        }
        commit.finish().unwrap();
        tx.commit();
        self.follow(base);
    }

    /// The replica goes from where the master stood to where it stands; how many octets that took.
    fn follow(&mut self, base: Position) -> usize {
        let now = record(&self.master);
        let key = SigningKey::from_bytes(&[0x42; 32]);
        let said = Checkpoint::of(&now, "2026-11-22T14:00:00Z".parse().unwrap());
        let base = (base.usn > 0).then_some(base);
        let sent = encode(&self.master, &now, base, &said.sign(&key)).unwrap().unwrap();
        let mut tx = self.replica.begin();
        let held = record(&tx);
        apply(&mut tx, &held, &sent.manifest, &said, &mut &sent.body[..]).unwrap();
        tx.commit();
        assert_eq!(record(&self.replica).digest, now.digest);
        sent.manifest.to_bytes().unwrap().len() + sent.body.len()
    }
}

fn exported(store: &MemoryStore) -> String {
    let mut out = Vec::new();
    export(store, &[record(store)], &mut out, Options { entry_uuids: true }, &mut |_| {}).unwrap();
    String::from_utf8(out).unwrap()
}

fn empty() -> MemoryStore {
    let mut store = MemoryStore::new();
    let mut tx = store.begin();
    create_context(&mut tx, &dn("o=Large"), "paris", Uuid::from_u128(7)).unwrap();
    tx.commit();
    store
}

fn record(read: &dyn Read) -> ContextRecord {
    context_by_number(read, 1).unwrap().unwrap()
}

fn name(at: usize) -> String {
    format!("uid=p{at:05},o=Large")
}

fn person(at: usize) -> Change {
    add(&name(at), "person", &[("manager", &name(at / 2))])
}

fn add(name: &str, class: &str, more: &[(&str, &str)]) -> Change {
    let pairs = [("objectClass", class)].into_iter().chain(more.iter().copied());
    let pairs = pairs.map(|(name, value)| (name, value.as_bytes().to_vec()));
    Change::Add { dn: dn(name), uuid: None, attributes: Attributes::from_pairs(pairs).unwrap() }
}

fn note(at: usize, text: &str) -> Change {
    set(at, "description", text)
}

fn set(at: usize, attribute: &str, value: &str) -> Change {
    let values = vec![value.as_bytes().to_vec()];
    let modification = Modification { operation: Operation::Replace, attribute: attribute.into(), values };
    Change::Modify { dn: dn(&name(at)), modifications: vec![modification] }
}

fn moved(at: usize, above: &str) -> Change {
    let new_rdn = Rdn::parse(&format!("uid=p{at:05}")).unwrap();
    Change::Rename { dn: dn(&name(at)), new_rdn, delete_old_rdn: false, new_superior: Some(dn(above)) }
}

fn dn(text: &str) -> Dn {
    Dn::parse(text).unwrap()
}
