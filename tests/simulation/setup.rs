//! How a world begins: its sites, and all that is to happen to them.

use std::time::Duration;

use bridgehead::directory::context::create_context;
use bridgehead::directory::dn::Dn;
use bridgehead::directory::memory::MemoryStore;
use bridgehead::replication::engine::{EngineConfig, KnownSite, Partner, Passage, Timing};
use bridgehead::replication::schedule::Schedule;
use ed25519_dalek::SigningKey;
use jiff::Timestamp;

use super::dice::Dice;
use super::identity;
use super::knobs::{Knobs, Topology};
use super::site::Site;
use super::staff::Act;
use super::workload::Workload;
use super::world::{Cut, Happening, START, World};

/// The sites of a world, each configured as its knobs say.
pub fn sites(knobs: &Knobs, dice: &mut Dice) -> Vec<Site> {
    let keys: Vec<SigningKey> = (0..knobs.sites).map(|_| SigningKey::from_bytes(&dice.bytes())).collect();
    let names: Vec<String> = (0..knobs.sites).map(|n| format!("s{n}")).collect();
    let context = |n: usize| format!("ou={},o=Example", names[n]);
    let known: Vec<KnownSite> = (0..knobs.sites)
        .map(|n| KnownSite {
            site: names[n].clone(),
            key: keys[n].verifying_key(),
            contexts: vec![context(n)],
            former: Vec::new(),
            card: None,
        })
        .collect();
    // In every other world so little that loads of several parts do not find room together.
    let inbox_bytes_max =
        if knobs.sites.is_multiple_of(2) { 48 << 10 } else { Timing::default().inbox_bytes_max };
    let timing = Timing {
        vector_whole_max: knobs.vector_whole_max,
        inbox_bytes_max,
        // Worlds last days: what takes a week is to happen in them.
        widening: Duration::from_secs(3600),
        ..Timing::default()
    };
    let mut sites = Vec::new();
    for n in 0..knobs.sites {
        let config = EngineConfig {
            site: names[n].clone(),
            key: keys[n].clone(),
            card: format!("card of {}", names[n]),
            succession: Default::default(),
            known: known.clone(),
            partners: partners(knobs, n, &names),
            timing: knobs.sabotage.timing(timing.clone()),
        };
        let mut store = MemoryStore::new();
        let mut tx = store.begin();
        let dn = Dn::parse(&context(n)).expect("a sound name");
        create_context(&mut tx, &dn, &names[n], uuid::Uuid::from_bytes(dice.bytes())).expect("a new context");
        tx.commit();
        let skew = dice.between(-knobs.skew, knobs.skew);
        let seed = keys[n].to_bytes().iter().fold(0, |seed: u64, octet| seed << 8 | u64::from(*octet));
        sites.push(Site::new(config, store, Workload::new(&context(n), seed), skew));
    }
    if knobs.rolls + knobs.moves > 0 {
        let now = Timestamp::from_millisecond(START).expect("a time of this millennium");
        for (site, identity) in sites.iter_mut().zip(identity::all(knobs, &names, now, dice)) {
            site.identity = Some(identity);
            site.configure();
        }
    }
    sites
}

fn partners(knobs: &Knobs, n: usize, names: &[String]) -> Vec<Partner> {
    let neighbours = knobs.topology.neighbours(n, knobs.sites);
    let hub = neighbours.len() > 1 && (knobs.circles || knobs.topology != Topology::Mesh);
    let mute = knobs.one_way.then_some(knobs.sites - 1);
    let partner = |m: usize| {
        let mut partner = Partner::new(&names[m]);
        partner.part_bytes_max = knobs.part_bytes_max;
        partner.schedule = if mute == Some(n) { Schedule::Never } else { knobs.schedule.clone() };
        partner.day_bytes_max = knobs.day_bytes_max;
        partner.delete_percent_max = knobs.sabotage.delete_percent_max(knobs.delete_percent_max);
        partner.one_way = mute == Some(m);
        if hub {
            partner.outbound = Passage::All;
        }
        partner
    };
    neighbours.into_iter().map(partner).collect()
}

impl World {
    /// Everything that is to happen, at times that chance chooses.
    pub fn plan_all(&mut self) {
        let sites = self.knobs.sites as u64;
        if self.knobs.late {
            self.plan_late_site();
        }
        for _ in 0..self.knobs.commits {
            let (n, at) = (self.dice.below(sites) as usize, self.moment(0));
            self.plan(START + at, Happening::Work(n));
        }
        for _ in 0..self.knobs.restores {
            // A master whom nobody can tell what it lost does not take it back.
            let n = self.observers.mute.unwrap_or(self.dice.below(sites) as usize);
            let copied = self.moment(0);
            let until = START + self.moment(copied);
            self.plan(START + copied, Happening::Operate(n, Act::Backup(until)));
        }
        for _ in 0..self.knobs.clones {
            let n = self.dice.below(sites) as usize;
            let at = self.moment(0);
            self.plan(START + at, Happening::Operate(n, Act::Copy));
        }
        for _ in 0..self.knobs.clocks {
            let n = self.dice.below(sites) as usize;
            let skew = self.dice.between(-self.knobs.skew, self.knobs.skew);
            let at = self.moment(0);
            self.plan(START + at, Happening::Operate(n, Act::Clock(skew)));
        }
        for _ in 0..self.knobs.resizes {
            let bytes = *self.dice.pick(&[usize::MAX, 200_000, 40_000, 25_000]);
            let at = self.moment(0);
            self.plan(START + at, Happening::Resize(bytes));
        }
        for _ in 0..self.knobs.cuts {
            self.plan_cut();
        }
        for _ in 0..self.knobs.operators {
            self.plan_act();
        }
        self.plan_renewals();
        if self.knobs.delete_percent_max < 100 {
            for _ in 0..4 {
                let (n, at) = (self.dice.below(sites) as usize, self.moment(0));
                self.plan(START + at, Happening::Operate(n, Act::Decide { always: false }));
            }
        }
        for _ in 0..self.knobs.renames {
            self.plan_rename();
        }
    }

    /// Keys that are renewed, mailboxes that move.
    fn plan_renewals(&mut self) {
        let sites = self.knobs.sites as u64;
        for _ in 0..self.knobs.rolls {
            let (n, at) = (self.dice.below(sites) as usize, self.moment(0));
            self.plan(START + at, Happening::Operate(n, Act::Roll));
        }
        for _ in 0..self.knobs.moves {
            let (n, at) = (self.dice.below(sites) as usize, self.moment(0));
            // As long as anybody may not have heard.
            let served = i64::MAX;
            self.plan(START + at, Happening::Operate(n, Act::Move { served }));
        }
    }

    /// Some time of the busy days after `from`.
    pub fn moment(&mut self, from: i64) -> i64 {
        self.dice.between(from, self.knobs.busy)
    }

    /// The last site is installed later; it and the others learn of one another each at a time of its own.
    fn plan_late_site(&mut self) {
        let late = self.knobs.sites - 1;
        let name = self.sites[late].name.clone();
        self.sites[late].asleep = true;
        for n in 0..late {
            let at = START + self.moment(0);
            self.plan(at, Happening::Operate(n, Act::Know(late)));
            let site = &mut self.sites[n];
            site.unknown.insert(name.clone());
            site.config.known.retain(|known| known.site != name);
            site.configure();
        }
        let at = START + self.moment(0);
        self.plan(at, Happening::Operate(late, Act::Wake));
    }

    fn plan_cut(&mut self) {
        let from = self.dice.below(self.knobs.sites as u64) as usize;
        let near = self.knobs.topology.neighbours(from, self.knobs.sites);
        let to = *self.dice.pick(&near);
        let begin = self.moment(0);
        let (begin, end) = (START + begin, START + self.moment(begin));
        let queues = self.dice.percent(50);
        self.cuts.push(Cut { from, to, begin, end, queues });
        if self.dice.percent(50) {
            self.cuts.push(Cut { from: to, to: from, begin, end, queues });
        }
    }

    /// One thing that an operator does, and later undoes.
    fn plan_act(&mut self) {
        let n = self.dice.below(self.knobs.sites as u64) as usize;
        let near = self.knobs.topology.neighbours(n, self.knobs.sites);
        let m = *self.dice.pick(&near);
        let begin = self.moment(0);
        let (begin, end) = (START + begin, START + self.moment(begin));
        let mute = self.observers.mute;
        let acts = match self.dice.below(6) {
            0 => vec![Act::Sync],
            1 => vec![Act::Verify],
            _ if mute == Some(n) || mute == Some(m) => vec![Act::Sync],
            2 | 3 => vec![Act::Pause(m, true), Act::Pause(m, false)],
            4 => vec![Act::Detach { site: m, purge: false }, Act::Know(m)],
            // What a partner holds may be all that is left of what a master lost.
            _ => vec![Act::Detach { site: m, purge: self.knobs.restores == 0 }, Act::Know(m)],
        };
        for (act, at) in acts.into_iter().zip([begin, end]) {
            self.plan(at, Happening::Operate(n, act));
        }
    }
}
