//! Mail that was altered on its way: it arrives, its seal does not hold, and it is refused as `daemon::intercept` does it,
//! a copy kept; the mail system that brought it may tell its sender.
//!
//! All of it has chance of its own, so that the rest of a seed's world stays what it is where such mail is lost.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use bridgehead::replication::engine::quarantine::{copy_bytes_max, kept, payload};
use bridgehead::replication::engine::{BounceStatus, Event, Input};

use super::cases::two_equal_sites;
use super::site::{Crash, Site};
use super::world::{DAY, HOUR, Happening, Letter, World};

impl World {
    /// The letter arrives with other octets. `bounces`: its sender is told.
    pub fn alter(&mut self, at: i64, mut letter: Letter, bounces: bool) {
        let mut octets = letter.payload.to_vec();
        let place = self.wear.below(octets.len() as u64) as usize;
        octets[place] ^= self.wear.between(1, 255) as u8;
        letter.payload = Rc::new(octets);
        self.note(|_| format!("    #{} is altered", letter.mail % 1_000_000));
        self.plan(at, Happening::Altered(letter, bounces));
    }

    pub fn deliver_altered(&mut self, letter: Letter, bounces: bool) {
        std::mem::swap(&mut self.dice, &mut self.wear);
        self.refuse_altered(letter, bounces);
        std::mem::swap(&mut self.dice, &mut self.wear);
    }

    fn refuse_altered(&mut self, letter: Letter, bounces: bool) {
        let n = letter.to;
        if self.sites[n].asleep {
            self.plan(self.now + 1000, Happening::Bounce(letter, BounceStatus::Failed));
            return;
        }
        self.note(|site| format!("    #{} is refused at {}", letter.mail % 1_000_000, site(n)));
        let most = copy_bytes_max(self.sites[n].config.timing.quarantine_bytes_max);
        let mail = letter.payload[..letter.payload.len().min(most)].to_vec();
        let (from, bytes) = (format!("{}+b@example", letter.names.0), letter.payload.len() as u64);
        let reason = "its seal does not hold".into();
        let crash = self.crash();
        let outcome = self.input(n, Input::Refused { from, reason, mail: mail.clone(), bytes }, crash);
        let later = self.now + self.delay();
        if outcome.is_none() {
            // The sending MTA got no answer and tries again.
            self.plan(later, Happening::Altered(letter, bounces));
            return;
        }
        let store = &self.sites[n].store;
        let copies = kept(store).expect("the store is sound");
        let mut of_it = copies.iter().filter(|copy| !copy.proved && copy.bytes == bytes);
        if !of_it.any(|copy| payload(store, copy).expect("the store is sound") == mail) {
            self.fail(&format!("{} refuses mail and keeps no copy", self.sites[n].name));
        }
        if bounces {
            self.plan(later, Happening::Bounce(letter, BounceStatus::Failed));
        }
    }
}

/// An observer: what a site keeps of refused mail is what it said it keeps, and has not said it let go.
#[derive(Default)]
pub struct Copies {
    /// By store, each copy's name and how many have it: of mail and of what a site sent there may be one each.
    told: HashMap<usize, BTreeMap<String, usize>>,
}

impl Copies {
    pub fn told(&mut self, n: usize, events: &[Event]) {
        let told = self.told.entry(n).or_default();
        for event in events {
            match event {
                Event::Kept { id, .. } => *told.entry(id.clone()).or_default() += 1,
                Event::Forgotten { id } => {
                    let count = told.remove(id).unwrap_or(0);
                    if count > 1 {
                        told.insert(id.clone(), count - 1);
                    }
                }
                _ => {}
            }
        }
    }

    /// The site's store was put back to an earlier day.
    pub fn restored(&mut self, n: usize, site: &Site) {
        self.told.insert(n, held(site));
    }

    pub fn problem(&self, n: usize, site: &Site) -> Option<String> {
        let (held, none) = (held(site), BTreeMap::new());
        let told = self.told.get(&n).unwrap_or(&none);
        let name = &site.name;
        (held != *told).then(|| format!("{name} keeps copies {held:?} of refused mail, and told of {told:?}"))
    }
}

fn held(site: &Site) -> BTreeMap<String, usize> {
    let mut held = BTreeMap::new();
    for copy in kept(&site.store).expect("the store is sound") {
        *held.entry(copy.id).or_default() += 1;
    }
    held
}

/// More than there is room for: the oldest copies go, and that is told.
#[test]
fn altered_mail_is_kept_within_bounds() {
    let mut world = two_equal_sites(|_| ());
    world.sites[1].whole.timing.quarantine_bytes_max = 4_000;
    world.sites[1].configure();
    world.input(1, Input::Start, Crash::No);
    world.run(world.now + HOUR, |_| false);
    world.knobs.corrupt = 100;
    for _ in 0..20 {
        world.work(0, 0);
        world.run(world.now + HOUR, |_| false);
    }
    for (n, site) in world.sites.iter().enumerate() {
        assert_eq!(world.observers.copies.problem(n, site), None);
    }
    let (kept, gone) = (world.observers.count("Kept"), world.observers.count("Forgotten"));
    assert!(gone > 3 && kept > gone, "{kept} kept, {gone} let go");
    world.knobs.corrupt = 0;
    assert!(world.run(world.now + 3 * DAY, World::equal));
}
