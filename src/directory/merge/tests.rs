//! Two branches of one history, merged: named situations, and random ones against the naive reading of what is promised.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::directory::change::{Change, Modification, Operation};
use crate::directory::context::{context_by_number, create_context, put_context};
use crate::directory::entry::{Attributes, Entry};
use crate::directory::histories::{any_change, check_sound, commit, dn};
use crate::directory::memory::{MemoryStore, MemoryTransaction};

const OURS: u32 = 1;
const THEIRS: u32 = 2;

/// One naming context twice: the second time as a partner has it.
struct Branches {
    store: MemoryStore,
    parted: u64,
}

fn record(read: &dyn Read, number: u32) -> ContextRecord {
    context_by_number(read, number).unwrap().unwrap()
}

fn entries(read: &dyn Read, number: u32) -> BTreeMap<Uuid, Entry> {
    let mut found = BTreeMap::new();
    lookup::scan_entries(read, number, &mut |entry| {
        found.insert(entry.uuid, entry);
        true
    })
    .unwrap();
    found
}

impl Branches {
    fn of(base: &[Change]) -> Branches {
        let mut store = MemoryStore::new();
        let mut tx = store.begin();
        create_context(&mut tx, &dn("o=Org"), "m", Uuid::from_u128(77)).unwrap();
        commit(&mut tx, OURS, 1, base);
        let mut theirs = create_context(&mut tx, &dn("cn=what was lost"), "m", Uuid::nil()).unwrap();
        theirs.dn = dn("o=Org");
        put_context(&mut tx, &theirs).unwrap();
        let held = entries(&tx, OURS);
        let mut replay = Replay::begin(&mut tx, &theirs);
        held.values().for_each(|entry| replay.add(entry).unwrap());
        replay.commit().unwrap();
        let parted = record(&tx, OURS).position.usn;
        tx.commit();
        Branches { store, parted }
    }

    fn merged(&mut self, ours: &[Change], theirs: &[Change]) -> (BTreeMap<Uuid, Entry>, Vec<Conflict>) {
        let parted = Some(self.parted);
        self.merged_from(parted, ours, theirs)
    }

    fn merged_from(
        &mut self,
        parted: Option<u64>,
        ours: &[Change],
        theirs: &[Change],
    ) -> (BTreeMap<Uuid, Entry>, Vec<Conflict>) {
        let mut tx = self.store.begin();
        commit(&mut tx, OURS, 2, ours);
        commit(&mut tx, THEIRS, 3, theirs);
        let conflicts = merge_all(&mut tx, parted, u64::MAX);
        let found = entries(&tx, OURS);
        tx.commit();
        (found, conflicts)
    }
}

fn merge_all(tx: &mut MemoryTransaction<'_>, parted: Option<u64>, most: u64) -> Vec<Conflict> {
    let (ours, theirs) = (record(tx, OURS), record(tx, THEIRS));
    let parted = parted.map(|usn| Parting { usn, ..Parting::default() });
    let conflicts = merge(tx, &ours, &theirs, parted.as_ref(), most).expect("nothing stops a merge");
    check_sound(tx, &record(tx, OURS));
    conflicts
}

fn attributes(pairs: &[(&str, &str)]) -> Attributes {
    Attributes::from_pairs(pairs.iter().map(|(name, value)| (*name, value.as_bytes().to_vec()))).unwrap()
}

fn add(name: &str, pairs: &[(&str, &str)]) -> Change {
    Change::Add { dn: dn(name), uuid: None, attributes: attributes(pairs) }
}

fn person(n: u32) -> Change {
    add(&format!("cn=p{n},o=Org"), &[("objectClass", "person"), ("cn", &format!("p{n}")), ("sn", "P")])
}

fn modify(name: &str, operation: Operation, attribute: &str, values: &[&str]) -> Change {
    let values = values.iter().map(|value| value.as_bytes().to_vec()).collect();
    let modification = Modification { operation, attribute: attribute.into(), values };
    Change::Modify { dn: dn(name), modifications: vec![modification] }
}

fn set(name: &str, attribute: &str, value: &str) -> Change {
    modify(name, Operation::Replace, attribute, &[value])
}

fn delete(name: &str) -> Change {
    Change::Delete { dn: dn(name) }
}

fn rename(name: &str, rdn: &str, above: Option<&str>) -> Change {
    let new_superior = above.map(dn);
    Change::Rename { dn: dn(name), new_rdn: Rdn::parse(rdn).unwrap(), delete_old_rdn: true, new_superior }
}

fn named<'e>(entries: &'e BTreeMap<Uuid, Entry>, rdn: &str) -> &'e Entry {
    entries.values().find(|entry| entry.rdn.as_str() == rdn).unwrap_or_else(|| panic!("no {rdn}"))
}

fn reasons(conflicts: &[Conflict]) -> Vec<String> {
    conflicts.iter().map(Conflict::to_string).collect()
}

#[test]
fn another_attribute_of_an_entry_that_was_touched_here_is_taken_back() {
    let mut both = Branches::of(&[person(1)]);
    let (found, conflicts) =
        both.merged(&[set("cn=p1,o=Org", "title", "new")], &[set("cn=p1,o=Org", "telephoneNumber", "1")]);
    let p = named(&found, "cn=p1");
    assert_eq!(p.attributes.text("telephoneNumber"), Some("1"));
    assert_eq!(p.attributes.text("title"), Some("new"));
    // Nobody can tell whether the partner deleted the title: it says so rather than be silent.
    assert_eq!(reasons(&conflicts), ["changed here: title"]);
}

#[test]
fn what_both_touched_stays_as_it_is_here_and_is_told_where_it_differs() {
    let mut both = Branches::of(&[person(1), person(2)]);
    let ours = [
        set("cn=p1,o=Org", "title", "ours"),
        set("cn=p2,o=Org", "title", "same"),
        set("cn=p1,o=Org", "objectClass", "device"),
    ];
    let theirs = [
        set("cn=p1,o=Org", "title", "theirs"),
        set("cn=p2,o=Org", "title", "same"),
        set("cn=p1,o=Org", "mail", "m"),
    ];
    let (found, conflicts) = both.merged(&ours, &theirs);
    assert_eq!(named(&found, "cn=p1").attributes.text("title"), Some("ours"));
    assert_eq!(named(&found, "cn=p1").attributes.text("mail"), None, "half of it may not fit the class");
    assert_eq!(reasons(&conflicts), ["changed here: mail, objectclass, title"]);
}

#[test]
fn members_of_a_large_group_are_taken_back_one_by_one() {
    let members: Vec<String> = (0..60).map(|n| format!("cn=m{n}")).collect();
    let mut pairs = vec![("objectClass", "groupOfNames"), ("cn", "g")];
    pairs.extend(members.iter().map(|member| ("member", member.as_str())));
    let mut both = Branches::of(&[add("cn=g,o=Org", &pairs)]);
    let group = |operation, value| modify("cn=g,o=Org", operation, "member", &[value]);
    let ours = [group(Operation::Add, "cn=ours"), group(Operation::Delete, "cn=m7")];
    let theirs = [
        group(Operation::Add, "cn=theirs"),
        group(Operation::Delete, "cn=m9"),
        group(Operation::Delete, "cn=m10"),
    ];
    let (found, conflicts) = both.merged(&ours, &theirs);
    let group = named(&found, "cn=g").attributes.values("member");
    let group: BTreeSet<&str> = group.iter().map(|value| std::str::from_utf8(value).unwrap()).collect();
    let gone = ["cn=m7", "cn=m9", "cn=m10"];
    let mut wanted: BTreeSet<&str> = members.iter().map(String::as_str).collect();
    wanted.retain(|member| !gone.contains(member));
    wanted.extend(["cn=ours", "cn=theirs"]);
    assert_eq!(group, wanted);
    assert_eq!(reasons(&conflicts), [] as [&str; 0]);
}

#[test]
fn deletions_are_taken_back_but_for_what_was_touched_here() {
    let mut both = Branches::of(&(1..=4).map(person).collect::<Vec<_>>());
    let ours = [set("cn=p1,o=Org", "title", "x"), delete("cn=p3,o=Org")];
    let theirs = [delete("cn=p1,o=Org"), delete("cn=p2,o=Org"), set("cn=p3,o=Org", "title", "y")];
    let (found, conflicts) = both.merged(&ours, &theirs);
    let left: Vec<&str> = found.values().map(|entry| entry.rdn.as_str()).collect();
    assert!(left.contains(&"cn=p1") && left.contains(&"cn=p4") && left.len() == 3, "{left:?}");
    let mut told = reasons(&conflicts);
    told.sort();
    assert_eq!(told, ["changed here, deleted there", "deleted here"]);
}

#[test]
fn what_came_beneath_an_entry_that_was_made_anew_here_goes_beneath_the_new_one() {
    let department = || add("ou=a,o=Org", &[("ou", "a")]);
    let mut both = Branches::of(&[department()]);
    let ours = [delete("ou=a,o=Org"), department()];
    let theirs = [add("cn=x,ou=a,o=Org", &[("cn", "x")]), set("ou=a,o=Org", "description", "theirs")];
    let (found, conflicts) = both.merged(&ours, &theirs);
    assert_eq!(named(&found, "cn=x").parent, named(&found, "ou=a").uuid);
    assert_eq!(reasons(&conflicts), ["deleted here"]);
    assert_eq!(found.len(), 3);
}

/// The store may have been put back for the sake of what was deleted there.
#[test]
fn what_was_deleted_there_stays_if_it_is_too_much_at_once() {
    let people: Vec<Change> = (1..=5).map(person).collect();
    let theirs = [delete("cn=p1,o=Org"), delete("cn=p2,o=Org"), delete("cn=p3,o=Org"), person(6)];
    for (most, left, told) in [(2, 8, 3), (3, 5, 0)] {
        let mut both = Branches::of(&people);
        let mut tx = both.store.begin();
        commit(&mut tx, OURS, 2, &[person(7)]);
        commit(&mut tx, THEIRS, 3, &theirs);
        let conflicts = merge_all(&mut tx, Some(both.parted), most);
        assert_eq!(entries(&tx, OURS).len(), left, "at most {most}");
        assert_eq!(reasons(&conflicts), vec!["deleted there, with more others than may go at once"; told]);
    }
}

/// The log does not reach back: it may have been deleted here.
#[test]
fn what_comes_and_may_have_been_deleted_here_is_told() {
    let mut both = Branches::of(&[person(1), person(2)]);
    let (found, conflicts) = both.merged_from(None, &[delete("cn=p2,o=Org")], &[]);
    named(&found, "cn=p2");
    assert_eq!(reasons(&conflicts), ["new there, or deleted here: it came"]);
}

/// A full load took the place of the log.
#[test]
fn what_may_have_been_deleted_there_is_told() {
    let mut both = Branches::of(&[person(1), person(2)]);
    let (found, conflicts) = both.merged_from(None, &[person(3)], &[delete("cn=p2,o=Org")]);
    assert_eq!(found.len(), 4);
    assert_eq!(reasons(&conflicts), ["new here, or deleted there"; 2]);
}

/// The second life went on after the first merge, and deleted what that had brought.
#[test]
fn what_an_earlier_merge_brought_and_is_not_there_now_is_told() {
    let mut both = Branches::of(&[person(1)]);
    let parted = both.parted;
    both.merged(&[person(2)], &[person(3)]);
    let mut tx = both.store.begin();
    let merges = BTreeSet::from([record(&tx, OURS).position.usn]);
    commit(&mut tx, THEIRS, 4, &[delete("cn=p3,o=Org")]);
    let (ours, theirs) = (record(&tx, OURS), record(&tx, THEIRS));
    let parting = Parting { usn: parted, merges, ..Parting::default() };
    let conflicts = merge(&mut tx, &ours, &theirs, Some(&parting), u64::MAX).unwrap();
    assert_eq!(reasons(&conflicts), ["taken back earlier, not there now"]);
    let found = entries(&tx, OURS);
    assert_eq!(conflicts[0].uuid, named(&found, "cn=p3").uuid);
    assert_eq!(found.len(), 4, "what is new here stays without a word");
}

/// The second partner had got further in the same life than the one that was heard first.
#[test]
fn what_an_earlier_merge_took_back_gives_way_to_what_became_of_it() {
    let mut both = Branches::of(&[person(1), person(2), person(6)]);
    let parted = both.parted;
    let renamed = rename("cn=p6,o=Org", "cn=p7", None);
    both.merged(&[person(3)], &[person(4), person(5), set("cn=p1,o=Org", "title", "one"), renamed]);
    let mut tx = both.store.begin();
    let merges = BTreeSet::from([record(&tx, OURS).position.usn]);
    // What was done here since counts as ever.
    commit(&mut tx, OURS, 2, &[set("cn=p1,o=Org", "mail", "p1@example.org"), delete("cn=p5,o=Org")]);
    let gone = [delete("cn=p4,o=Org"), delete("cn=p2,o=Org"), rename("cn=p7,o=Org", "cn=p8", None)];
    commit(&mut tx, THEIRS, 4, &gone);
    commit(&mut tx, THEIRS, 5, &[set("cn=p1,o=Org", "title", "two")]);
    let (ours, theirs) = (record(&tx, OURS), record(&tx, THEIRS));
    let parting = Parting { usn: parted, passed: merges.clone(), merges };
    let conflicts = merge(&mut tx, &ours, &theirs, Some(&parting), u64::MAX).unwrap();
    let found = entries(&tx, OURS);
    let names: BTreeSet<&str> = found.values().map(|entry| entry.rdn.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["o=Org", "cn=p1", "cn=p3", "cn=p8"]));
    let p1 = &named(&found, "cn=p1").attributes;
    assert_eq!((p1.text("title"), p1.text("mail")), (Some("two"), Some("p1@example.org")));
    assert_eq!(reasons(&conflicts), ["deleted here", "changed here: mail"]);
}

#[test]
fn entries_stay_that_others_hang_on_here() {
    let mut both = Branches::of(&[add("ou=a,o=Org", &[("ou", "a")]), add("ou=b,o=Org", &[("ou", "b")])]);
    let ours = [add("cn=x,ou=a,o=Org", &[("cn", "x")]), delete("ou=b,o=Org")];
    let theirs = [
        delete("ou=a,o=Org"),
        add("cn=y,ou=b,o=Org", &[("cn", "y")]),
        add("cn=z,cn=y,ou=b,o=Org", &[("cn", "z")]),
    ];
    let (found, conflicts) = both.merged(&ours, &theirs);
    assert_eq!(named(&found, "cn=x").parent, named(&found, "ou=a").uuid);
    assert_eq!(found.len(), 3);
    let told = reasons(&conflicts);
    assert_eq!(told.iter().filter(|why| why.starts_with("what it belongs beneath")).count(), 2, "{told:?}");
    assert!(told.iter().any(|why| why.contains("entries beneath it here")) && told.len() == 4, "{told:?}");
}

#[test]
fn names_that_were_exchanged_there_are_exchanged_here() {
    let mut both = Branches::of(&[person(1), person(2)]);
    let theirs = [
        rename("cn=p1,o=Org", "cn=p3", None),
        rename("cn=p2,o=Org", "cn=p1", None),
        rename("cn=p3,o=Org", "cn=p2", None),
    ];
    let before = named(&entries(&both.store, OURS), "cn=p1").uuid;
    let (found, conflicts) = both.merged(&[set("cn=p1,o=Org", "title", "t")], &theirs);
    let now = &found[&before];
    assert_eq!((now.rdn.as_str(), now.attributes.text("cn")), ("cn=p2", Some("p2")));
    assert_eq!(now.attributes.text("title"), Some("t"));
    assert_eq!(reasons(&conflicts), ["changed here: title"]);
}

#[test]
fn a_name_that_was_changed_here_alone_is_no_conflict() {
    let mut both = Branches::of(&[person(1), person(2)]);
    let ours = [rename("cn=p1,o=Org", "cn=ours", None), rename("cn=p2,o=Org", "cn=ours2", None)];
    let theirs = [set("cn=p1,o=Org", "title", "t"), rename("cn=p2,o=Org", "cn=theirs2", None)];
    let (found, conflicts) = both.merged(&ours, &theirs);
    let p = named(&found, "cn=ours");
    assert_eq!((p.attributes.text("cn"), p.attributes.text("title")), (Some("ours"), Some("t")));
    assert_eq!(named(&found, "cn=ours2").attributes.values("cn").len(), 1);
    assert_eq!(reasons(&conflicts), ["renamed here, and there"]);
}

/// Each by itself is no circle.
#[test]
fn two_moves_that_would_close_a_circle_do_not() {
    let mut both = Branches::of(&[add("ou=a,o=Org", &[("ou", "a")]), add("ou=b,o=Org", &[("ou", "b")])]);
    let ours = [rename("ou=a,o=Org", "ou=a", Some("ou=b,o=Org"))];
    let theirs = [rename("ou=b,o=Org", "ou=b", Some("ou=a,o=Org"))];
    let (found, conflicts) = both.merged(&ours, &theirs);
    assert_eq!(named(&found, "ou=a").parent, named(&found, "ou=b").uuid);
    assert!(reasons(&conflicts).iter().any(|why| why.contains("beneath itself")), "{conflicts:?}");
}

/// The operator imports once more, before a partner answers, what was lost. Their entryUUIDs are new.
#[test]
fn however_many_names_are_taken_the_rest_comes() {
    let mut both = Branches::of(&[add("ou=a,o=Org", &[("ou", "a")])]);
    let import: Vec<Change> = (0..3_000).map(person).collect();
    let beneath = add("ou=below,cn=p7,o=Org", &[("ou", "below")]);
    let theirs: Vec<Change> = import.iter().cloned().chain([beneath, person(9_999)]).collect();
    let (mut tx, parted) = (both.store.begin(), both.parted);
    for (number, batch, changes) in [(OURS, 2, &import), (THEIRS, 3, &theirs)] {
        let mut whole = crate::directory::commit::Commit::begin(&mut tx, number, [batch; 12]).unwrap();
        changes.iter().for_each(|change| whole.apply(change).unwrap());
        whole.finish().unwrap();
    }
    let ours = entries(&tx, OURS);
    let conflicts = merge_all(&mut tx, Some(parted), u64::MAX);
    assert_eq!(conflicts.len(), 3_000);
    let found = entries(&tx, OURS);
    assert_eq!(found.len(), ours.len() + 2);
    assert_eq!(named(&found, "ou=below").parent, named(&ours, "cn=p7").uuid, "beneath what is here");
    named(&found, "cn=p9999");
}

/// What the partner did to one entry and is not here: an attribute's value that it added or took away. The value of a
/// name that the entry does not have here does not count.
fn lost(base: &Entry, theirs: &Entry, merged: &Entry) -> bool {
    let attributes = [base, theirs, merged].into_iter().flat_map(|entry| entry.attributes.iter());
    let all: BTreeSet<String> = attributes.map(|a| a.name().to_ascii_lowercase()).collect();
    all.iter().any(|name| {
        let values =
            |entry: &Entry| -> BTreeSet<Vec<u8>> { entry.attributes.values(name).iter().cloned().collect() };
        let naming = theirs.rdn.pairs().into_iter().filter(|(of, _)| of.eq_ignore_ascii_case(name));
        let naming: BTreeSet<Vec<u8>> = match theirs.rdn.matches(&merged.rdn) {
            true => BTreeSet::new(),
            false => naming.map(|(_, value)| value).collect(),
        };
        let (base, theirs, merged) = (values(base), values(theirs), values(merged));
        !(&(&theirs - &base) - &naming).is_subset(&merged)
            || (&base - &theirs).intersection(&merged).next().is_some()
    })
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    proptest::collection::vec(any_change(), 0..14)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_is_lost_without_a_word(
        base in proptest::collection::vec(any_change(), 4..20), ours in changes(), theirs in changes(), known in any::<bool>(), few in any::<bool>(),
    ) {
        let mut both = Branches::of(&base);
        let before = entries(&both.store, OURS);
        let mut tx = both.store.begin();
        commit(&mut tx, OURS, 2, &ours);
        commit(&mut tx, THEIRS, 3, &theirs);
        let (ours, theirs) = (entries(&tx, OURS), entries(&tx, THEIRS));
        let conflicts = merge_all(&mut tx, known.then_some(both.parted), if few { 1 } else { u64::MAX });
        let merged = entries(&tx, OURS);
        tx.commit();
        let told: BTreeSet<Uuid> = conflicts.iter().map(|conflict| conflict.uuid).collect();

        for (uuid, theirs) in &theirs {
            match (before.get(uuid), merged.get(uuid)) {
                _ if told.contains(uuid) => {}
                (_, None) => prop_assert!(false, "{} did not come", theirs.rdn.as_str()),
                (None, Some(merged)) => prop_assert_eq!(&merged.attributes, &theirs.attributes),
                (Some(before), Some(merged)) => {
                    prop_assert!(!lost(before, theirs, merged), "{before:?}\n{theirs:?}\n{merged:?}");
                    let name = |entry: &Entry| (entry.parent, entry.rdn.normalized());
                    let moved = name(theirs) != name(before);
                    prop_assert!(!moved || merged.rdn.matches(&theirs.rdn));
                }
            }
        }
        let gone = ours.keys().filter(|uuid| !merged.contains_key(uuid)).count();
        prop_assert!(!few || gone <= 1, "{gone} entries went away");
        for uuid in before.keys().filter(|uuid| !theirs.contains_key(uuid) && merged.contains_key(uuid)) {
            prop_assert!(told.contains(uuid), "it was deleted there");
        }
        // What only happened here is not undone by anybody.
        for (uuid, own) in &ours {
            let Some(now) = merged.get(uuid) else {
                prop_assert!(before.get(uuid) == Some(own), "what was changed here goes away");
                continue;
            };
            if let Some(before) = before.get(uuid) {
                prop_assert!(!lost(before, own, now) || conflicts.iter().any(|conflict| conflict.uuid == *uuid));
            } else {
                prop_assert_eq!(now, own);
            }
        }
    }

    /// Whether a partner that had got less far is heard before the one that got further, or not at all.
    #[test]
    fn a_merge_on_the_way_makes_no_difference(
        base in proptest::collection::vec(any_change(), 4..20), ours in changes(), first in changes(), then in changes(),
    ) {
        let results: Vec<_> = [true, false].into_iter().map(|on_the_way| {
            let mut both = Branches::of(&base);
            let mut tx = both.store.begin();
            commit(&mut tx, OURS, 2, &ours);
            commit(&mut tx, THEIRS, 3, &first);
            let mut parting = Parting { usn: both.parted, ..Parting::default() };
            let mut conflicts = Vec::new();
            if on_the_way {
                let before = record(&tx, OURS);
                let theirs = record(&tx, THEIRS);
                conflicts = merge(&mut tx, &before, &theirs, Some(&parting), u64::MAX).unwrap();
                let usn = record(&tx, OURS).position.usn;
                parting.merges.extend((usn > before.position.usn).then_some(usn));
                parting.passed = parting.merges.clone();
            }
            commit(&mut tx, THEIRS, 4, &then);
            let (ours, theirs) = (record(&tx, OURS), record(&tx, THEIRS));
            conflicts.extend(merge(&mut tx, &ours, &theirs, Some(&parting), u64::MAX).unwrap());
            check_sound(&tx, &record(&tx, OURS));
            let told: BTreeSet<Uuid> = conflicts.into_iter().map(|conflict| conflict.uuid).collect();
            (entries(&tx, OURS), told)
        }).collect();
        let [(one, told), (other, told_too)] = &results[..] else { unreachable!() };
        let told = told | told_too;
        // What is told need not come to the same, nor what hangs beneath it.
        let is_told = |entries: &BTreeMap<Uuid, Entry>, uuid: &Uuid| {
            let parent = |uuid: &Uuid| entries.get(uuid).map(|entry| entry.parent);
            std::iter::successors(Some(*uuid), parent).any(|uuid| told.contains(&uuid))
        };
        for uuid in one.keys().chain(other.keys()).filter(|uuid| !is_told(one, uuid) && !is_told(other, uuid)) {
            prop_assert_eq!(one.get(uuid), other.get(uuid));
        }
    }
}
