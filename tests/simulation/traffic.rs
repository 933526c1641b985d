//! An observer of the mail: nobody floods a partner that is silent, nobody sends everything for a little.

use std::collections::{HashMap, HashSet};

use bridgehead::replication::parts::TransferId;
use bridgehead::replication::transfer::{Base, Manifest};
use bridgehead::replication::wire::Message;

use super::knobs::Knobs;
use super::world::{DAY, HOUR};

#[derive(Default)]
pub struct Traffic {
    links: HashMap<(usize, usize), Silence>,
    /// Who told whom that it holds something of a naming context, and did not take it back.
    told: HashMap<(usize, usize, String), bool>,
    full: HashSet<(usize, usize, TransferId)>,
    /// Somebody lost what it held, or may say so: then everything is sent again.
    pub lawless: bool,
    /// The newest message that was taken.
    newest: HashMap<(usize, usize), u64>,
}

/// What went one way since anything arrived the other way.
#[derive(Default)]
struct Silence {
    since: i64,
    /// Messages without any part that was new.
    repeats: u64,
    fresh: u64,
    parts: HashSet<(TransferId, u32)>,
}

impl Traffic {
    /// A message leaves; what is wrong with it, if anything.
    pub fn posted(
        &mut self,
        now: i64,
        (from, to): (usize, usize),
        message: &Message,
        knobs: &Knobs,
    ) -> Option<String> {
        let silence = self.links.entry((from, to)).or_default();
        if silence.since == 0 {
            silence.since = now;
        }
        let parts = &mut silence.parts;
        let fresh = message.parts.iter().filter(|item| parts.insert((item.part.transfer, item.part.index)));
        match fresh.count() {
            0 => silence.repeats += 1,
            _ => silence.fresh += 1,
        }
        let wakes = [knobs.crash, knobs.restores, knobs.clones, knobs.malicious as u64, knobs.refuse];
        let wakes = wakes.iter().any(|knob| *knob > 0) || knobs.disk_full > 0 || knobs.operators > 0;
        let wakes = wakes || knobs.rolls + knobs.moves + knobs.renames > 0;
        let hours = ((now - silence.since) / HOUR) as u64;
        // Timers that double from seconds to two days, one for parts and one for each naming context asked for.
        let most = 60 + hours / 2 + 20 * knobs.sites as u64 + 4 * silence.fresh;
        if !wakes && knobs.delay.1 < DAY && silence.repeats > most {
            return Some(format!("s{from} sends s{to} {} messages in {hours} silent hours", silence.repeats));
        }
        self.whole(from, to, message, knobs)
    }

    /// Who told that it holds something gets what changed, unless it asks for everything.
    fn whole(&mut self, from: usize, to: usize, message: &Message, knobs: &Knobs) -> Option<String> {
        let lawless = self.lawless
            || knobs.restores + knobs.clones + knobs.operators + knobs.renames > 0
            || knobs.malicious
            || knobs.one_way;
        for item in message.parts.iter().filter(|_| !lawless) {
            let Ok(manifest) = Manifest::from_bytes(&item.part.manifest) else { continue };
            // What came to a hub as a whole goes on as a whole.
            let own = item.context == format!("ou=s{from},o=Example");
            let known = own && self.told.get(&(to, from, item.context.clone())).copied().unwrap_or(false);
            let whole = manifest.base == Base::Nothing;
            if whole && self.full.insert((from, to, item.part.transfer)) && known {
                return Some(format!("s{from} sends s{to} all of {} for a part of it", item.context));
            }
        }
        None
    }

    /// A message was taken.
    pub fn delivered(&mut self, from: usize, to: usize, seq: u64, payload: &[u8]) {
        self.links.remove(&(to, from));
        let newest = self.newest.entry((from, to)).or_default();
        if seq < std::mem::replace(newest, seq.max(*newest)) {
            return;
        }
        let Ok(message) = Message::decode(payload) else { return };
        for item in &message.vector {
            let told = self.told.entry((from, to, item.context.clone())).or_default();
            *told |= item.position.is_some();
        }
        for request in message.requests.iter().filter(|r| r.transfer.is_none() && r.base.is_none()) {
            self.told.insert((from, to, request.context.clone()), false);
        }
    }
}
