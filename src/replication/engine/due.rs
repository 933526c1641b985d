//! When a site is to be spoken with next, and why: for the engine's timers, and for people.

use super::config::{EngineConfig, Partner};
use super::serve::in_flight;
use crate::replication::pacing::millis;
use crate::replication::peer::{Link, Millis, Peer};
use crate::replication::schedule::Schedule;

/// Messages so close to one another are one burst.
pub(super) const BURST_MS: Millis = 60_000;
const DAY_MS: Millis = 86_400_000;

/// Why a site is spoken with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    Hello,
    Changes,
    /// Parts wait, and may leave now.
    Parts,
    /// Parts wait for the next day's budget of bytes.
    Budget,
    /// What was not acknowledged is sent again.
    Again,
    /// What is missing here is asked for.
    Missing,
    /// `sync` asks once more.
    Question,
    Comparison,
    Acknowledgement,
    /// Everything, over a link on which nothing comes back.
    Repeat,
    Heartbeat,
}

/// What is due to the site first, and when; its schedule may put that off. None: nothing ever, as it stands.
pub fn next_due(config: &EngineConfig, partner: &Partner, peer: &Peer, now: Millis) -> Option<(Millis, Due)> {
    if partner.paused || peer.paused {
        return None;
    }
    let hello = peer.greeting.at.map(|at| (at, Due::Hello));
    let (due, why) = if peer.answered { answered_due(config, partner, peer, now) } else { hello }?;
    let open = |at: Millis| jiff::Timestamp::from_millisecond(at).ok();
    // What was begun is brought to its end.
    let burst = peer.burst_at.filter(|at| due.max(now) - at > BURST_MS).and_then(open);
    // What was due when the link was open last waits until it is open again.
    let from = if partner.schedule == Schedule::Always { due } else { due.max(now) };
    partner.schedule.open_from(open(from)?, burst).map(|at| (at.as_millisecond(), why))
}

fn answered_due(config: &EngineConfig, partner: &Partner, peer: &Peer, now: Millis) -> Option<(Millis, Due)> {
    let heartbeat = peer.sent_at.map_or(now, |at| at + millis(config.timing.heartbeat));
    let of_link = |link: &Link| {
        [(link.push_at, Due::Changes), (link.ask_at, Due::Missing), (link.verify_at, Due::Comparison)]
    };
    let opens = budget_opens(partner, peer, now);
    let unsent = may_send_parts(config, peer).then_some(opens);
    let timers = [
        (repeat_due(partner, peer), Due::Repeat),
        (peer.greeting.at, Due::Hello),
        (peer.answer_at, Due::Acknowledgement),
        (peer.ask_again_at, Due::Question),
        (peer.vector_at, Due::Missing),
        (peer.retry_at, Due::Again),
        (unsent, if opens > now { Due::Budget } else { Due::Parts }),
        (Some(heartbeat), Due::Heartbeat),
    ];
    let all = peer.links.iter().flat_map(of_link).chain(timers);
    all.filter_map(|(at, why)| Some((at?, why))).min()
}

/// When bytes may be sent: now, or at the beginning of the next day (UTC).
pub fn budget_opens(partner: &Partner, peer: &Peer, now: Millis) -> Millis {
    let today = now.div_euclid(DAY_MS);
    let spent = if peer.day.0 == today { peer.day.1 } else { 0 };
    let left = partner.day_bytes_max.is_none_or(|budget| spent < budget);
    if left { now } else { (today + 1) * DAY_MS }
}

/// Parts wait and the window has room.
pub(super) fn may_send_parts(config: &EngineConfig, peer: &Peer) -> bool {
    peer.links.iter().any(|link| {
        let room = in_flight(&link.chain) < config.timing.window_bytes;
        link.chain.iter().any(|flight| !flight.again.is_empty() || (flight.next < flight.parts && room))
    })
}

/// When the next full load is due on a link that cannot ask for it.
fn repeat_due(partner: &Partner, peer: &Peer) -> Option<Millis> {
    let repeats = peer.links.iter().filter_map(|link| link.repeat_at);
    partner.one_way.then(|| repeats.min()).flatten()
}
