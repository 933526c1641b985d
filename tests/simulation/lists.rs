//! What the lists of a link let pass: three sites in a line, the one in the middle a hub.
//!
//! PROMISES
//!   Of a naming context that is off the list outbound nothing is sent: no part, and where it would not be taken
//!   from that site either, not its name. What is off the list inbound and comes all the same is kept for the
//!   operator, told, and changes nothing. A hub that sends its own sends nothing of others, whoever holds some of it.
//!   What is under way ends when a list becomes narrower.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use bridgehead::directory::context::{ContextRecord, contexts};
use bridgehead::replication::engine::quarantine::kept;
use bridgehead::replication::engine::{Input, Partner, Passage};
use bridgehead::replication::parts::TransferId;
use bridgehead::replication::wire::Message;

use super::knobs::{Knobs, Topology};
use super::site::Crash;
use super::world::{DAY, HOUR, Happening, Letter, World};

const FAR: &str = "ou=s0,o=Example";
const HUBS: &str = "ou=s1,o=Example";

/// A line in which nobody has committed anything. `link`: changes what the hub has set for the last site.
fn line(link: impl FnOnce(&mut Partner)) -> World {
    let mut world = World::new(1, Knobs { sites: 3, topology: Topology::Line, commits: 0, ..Knobs::calm() });
    set(&mut world, 1, "s2", link);
    world
}

/// The operator of site `n` sets the link to another one.
fn set(world: &mut World, n: usize, site: &str, link: impl FnOnce(&mut Partner)) {
    let partners = &mut world.sites[n].whole.partners;
    link(partners.iter_mut().find(|partner| partner.site == site).expect("it is a partner"));
    world.sites[n].configure();
    world.input(n, Input::Start, Crash::No);
}

/// The naming contexts that mail from the hub to the last site names.
#[derive(Default)]
struct Named {
    parts: BTreeSet<String>,
    /// Which those parts are of.
    transfers: BTreeSet<TransferId>,
    /// In whatever else there is.
    besides: BTreeSet<String>,
}

impl Named {
    fn anywhere(&self) -> BTreeSet<String> {
        self.parts.union(&self.besides).cloned().collect()
    }

    fn note(&mut self, message: Message) {
        self.transfers.extend(message.parts.iter().map(|item| item.part.transfer));
        self.parts.extend(message.parts.into_iter().map(|item| item.context));
        self.besides.extend(message.vector.into_iter().map(|item| item.context));
        self.besides.extend(message.requests.into_iter().map(|request| request.context));
        self.besides.extend(message.digests.into_iter().map(|item| item.context));
        self.besides.extend(message.notices.into_iter().filter_map(|notice| notice.context));
    }
}

/// What is on its way from the hub to the last site.
fn letters(world: &World) -> impl Iterator<Item = &Letter> {
    let letters = world.queue.iter().filter_map(|Reverse(planned)| match &planned.2 {
        Happening::Deliver(letter) => Some(letter),
        _ => None,
    });
    letters.filter(|letter| (letter.from, letter.to) == (1, 2))
}

fn message(letter: &Letter) -> Message {
    Message::decode(&letter.payload).expect("what is sent can be read")
}

/// Runs for a day; each mail is on its way for a second at least, so none is missed.
fn named_in_a_day(world: &mut World) -> Named {
    let mut named = Named::default();
    let mut seen = 0;
    world.run(world.now + DAY, |world| {
        let newest = letters(world).map(|letter| letter.mail).max().unwrap_or(0);
        letters(world).filter(|letter| letter.mail > seen).for_each(|letter| named.note(message(letter)));
        seen = seen.max(newest);
        false
    });
    named
}

/// What the last site holds of a naming context.
fn held(world: &World, context: &str) -> Option<ContextRecord> {
    let all = contexts(&world.sites[2].store).unwrap();
    all.into_iter().find(|record| record.dn.to_string() == context && record.position.usn > 0)
}

fn names<const N: usize>(contexts: [&str; N]) -> BTreeSet<String> {
    contexts.into_iter().map(str::to_owned).collect()
}

#[test]
fn what_is_off_the_list_outbound_is_not_sent() {
    for (listed, off) in [(FAR, HUBS), (HUBS, FAR)] {
        let mut world = line(|link| {
            link.outbound = Passage::Only(vec![listed.to_uppercase()]);
            // Where the hub stands with what it would take from that site it has to say.
            link.inbound = Passage::Own;
        });
        (0..3).for_each(|n| world.work(n, 20));
        let mut named = named_in_a_day(&mut world);
        assert_eq!(named.parts, names([listed]));
        world.input(2, Input::Sync { site: None }, Crash::No);
        world.work(0, 0);
        world.work(1, 0);
        let later = named_in_a_day(&mut world);
        named.parts.extend(later.parts);
        named.besides.extend(later.besides);
        assert!(!named.anywhere().contains(off), "{off} is named: {:?} {:?}", named.parts, named.besides);
        assert!(named.besides.contains(listed));
        let master = usize::from(listed == HUBS);
        assert!(held(&world, listed).is_some() && world.observers.holds(2, master, listed));
        assert_eq!(held(&world, off), None);
    }
}

/// The hub would take it from there as well, and so says where it stands; that moves it to send nothing.
#[test]
fn what_is_off_the_list_outbound_is_not_sent_to_whom_it_might_come_from() {
    let mut world = line(|link| link.outbound = Passage::Only(vec![HUBS.into()]));
    (0..3).for_each(|n| world.work(n, 20));
    let named = named_in_a_day(&mut world);
    assert!(named.besides.contains(FAR));
    assert!(world.observers.count("Requested") > 0, "the last site asks for it");
    assert_eq!((named.parts, held(&world, FAR)), (names([HUBS]), None));
}

/// It is on its way when the operator of the last site takes it off the list.
#[test]
fn what_is_off_the_list_inbound_is_kept_and_changes_nothing() {
    let mut world = line(|_| ());
    (0..3).for_each(|n| world.work(n, 20));
    assert!(world.run(world.now + DAY, World::equal));
    world.run(world.now + HOUR, |_| false);
    let before = held(&world, FAR);
    assert!(before.is_some());

    world.work(0, 0);
    let mut coming = Named::default();
    let is_coming = |world: &World| {
        letters(world).for_each(|letter| coming.note(message(letter)));
        !coming.parts.is_empty()
    };
    assert!(world.run(world.now + HOUR, is_coming));
    set(&mut world, 2, "s1", |link| link.inbound = Passage::Only(vec![HUBS.into()]));
    world.run(world.now + HOUR, |_| false);
    assert!(world.observers.count("NotApplied") > 0);
    assert_eq!(world.observers.count("Kept"), 1);
    let copies = kept(&world.sites[2].store).unwrap();
    let of: Vec<_> = copies.iter().map(|copy| (copy.site.as_str(), copy.reason.as_str())).collect();
    assert_eq!(of, [("s1", "it is not taken from this site")]);
    assert_eq!(held(&world, FAR), before);

    // The hub heard that no more of it is wanted; what is on the list goes on.
    world.work(0, 0);
    let named = named_in_a_day(&mut world);
    assert!(named.transfers.is_subset(&coming.transfers), "{:?}", named.parts);
    world.work(1, 0);
    world.run(world.now + HOUR, |_| false);
    assert!(world.observers.holds(2, 1, HUBS));
    assert_eq!(held(&world, FAR), before);
}

#[test]
fn a_hub_that_sends_its_own_sends_no_load_of_others() {
    let mut world = line(|link| link.outbound = Passage::Own);
    (0..3).for_each(|n| world.work(n, 20));
    let named = named_in_a_day(&mut world);
    assert!(world.observers.count("Requested") > 0, "the last site asks for it");
    assert_eq!(named.parts, names([HUBS]));
    assert_eq!(held(&world, FAR), None);
    assert!(world.observers.holds(2, 1, HUBS));
}

/// It got it while the hub passed everything on, and so knows what to ask for.
#[test]
fn who_holds_some_of_anothers_gets_no_more_once_it_is_off_the_list() {
    let mut world = line(|_| ());
    (0..3).for_each(|n| world.work(n, 20));
    assert!(world.run(world.now + DAY, World::equal));
    set(&mut world, 1, "s2", |link| link.outbound = Passage::Own);
    world.run(world.now + HOUR, |_| false);
    let (asked, before) = (world.observers.count("Requested"), held(&world, FAR));
    world.work(0, 0);
    assert!(!named_in_a_day(&mut world).parts.contains(FAR));
    assert!(world.observers.count("Requested") > asked, "it asks");
    assert_eq!(held(&world, FAR), before);
}

/// A load of many parts is under way, some each day, when one side takes the naming context off its list.
#[test]
fn what_is_under_way_ends_when_a_list_becomes_narrower() {
    for by_receiver in [false, true] {
        let mut world = line(|link| (link.day_bytes_max, link.part_bytes_max) = (Some(65_536), 16 << 10));
        world.work(2, 1);
        world.run(world.now + DAY, |_| false);
        world.work(1, 600);
        assert!(named_in_a_day(&mut world).parts.contains(HUBS), "some of it leaves");
        assert_eq!(held(&world, HUBS), None, "and not all");
        if by_receiver {
            set(&mut world, 2, "s1", |link| link.inbound = Passage::Only(vec![FAR.to_owned()]));
        } else {
            set(&mut world, 1, "s2", |link| link.outbound = Passage::Only(vec![FAR.to_owned()]));
        }
        world.run(world.now + DAY, |_| false);
        let refused = world.observers.count("NotApplied");
        for _ in 0..5 {
            assert!(!named_in_a_day(&mut world).parts.contains(HUBS), "by the receiver: {by_receiver}");
        }
        assert_eq!(world.observers.count("NotApplied"), refused);
    }
}
