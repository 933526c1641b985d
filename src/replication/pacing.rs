//! How long to wait for mail: the round trip of a link as measured, what was heard already, and when larger parts are tried
//! again.
//!
//! STANDARDS
//!   RFC 6298 (the estimator and its back-off), over seconds to days instead of milliseconds.
//!
//! LIMITS
//!   [`RECENT_MAX`] sequence numbers are remembered one by one; all lower ones count as heard.

use std::time::Duration;

use minicbor::{Decode, Encode};

use super::cbor::packed;
use super::engine::Timing;
use super::peer::Millis;

/// Smoothed round trip and its variation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct RoundTrip {
    #[n(0)]
    pub smoothed: Option<Millis>,
    #[n(1)]
    #[cbor(default)]
    pub variation: Millis,
    /// Timeouts in a row.
    #[n(2)]
    #[cbor(default)]
    pub backed_off: u32,
}

impl RoundTrip {
    /// Takes one measurement (RFC 6298 section 2). Every message has a number of its own, so a
    /// measurement is never ambiguous.
    pub fn measure(&mut self, sample: Millis) {
        let sample = sample.clamp(0, SAMPLE_MAX);
        match self.smoothed {
            None => {
                self.smoothed = Some(sample);
                self.variation = sample / 2;
            }
            Some(smoothed) => {
                self.variation = (3 * self.variation + (smoothed - sample).abs()) / 4;
                self.smoothed = Some((7 * smoothed + sample) / 8);
            }
        }
    }

    /// After how long an answer is expected at the latest, from what was measured.
    pub fn expected(&self, timing: &Timing) -> Millis {
        let first = match self.smoothed {
            None => millis(timing.retry_first),
            // What the peer may hold back for company is not the way's fault.
            Some(smoothed) => smoothed + 4 * self.variation + 2 * millis(timing.acknowledgement),
        };
        first.clamp(millis(timing.retry_min), millis(timing.retry_max))
    }

    /// The same, doubled with each time that nothing came.
    pub fn timeout(&self, timing: &Timing) -> Millis {
        let first = self.expected(timing);
        first.saturating_mul(1 << self.backed_off.min(20)).min(millis(timing.retry_max))
    }

    pub fn back_off(&mut self) {
        self.backed_off = self.backed_off.saturating_add(1);
    }
}

const SAMPLE_MAX: Millis = 60 * 86_400_000;

pub fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

/// How long to wait after something was tried in vain so many times before: twice as long each time, up to a bound.
pub fn in_vain(first: Millis, times: u32, timing: &Timing) -> Millis {
    first.saturating_mul(1 << times.min(16)).min(millis(timing.retry_max))
}

/// When parts that became smaller, for mail came back as too large, are tried larger again: once some of the present size
/// were acknowledged, after a while. A hop with a firm limit refuses that each time, so each such refusal doubles the while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Widening {
    /// Not before.
    #[n(0)]
    pub at: Option<Millis>,
    /// Times that larger parts came back.
    #[n(1)]
    #[cbor(default)]
    in_vain: u32,
    /// Parts became larger since they became smaller last.
    #[n(2)]
    #[cbor(default)]
    tried: bool,
    /// Parts of the present size were acknowledged.
    #[n(3)]
    #[cbor(default)]
    passed: bool,
}

impl Widening {
    /// Parts are smaller from now on.
    pub fn narrowed(&mut self, now: Millis, timing: &Timing) {
        self.in_vain = self.in_vain.saturating_add(u32::from(self.tried));
        (self.tried, self.passed) = (false, false);
        self.wait(now, timing);
    }

    pub fn pass(&mut self) {
        self.passed = true;
    }

    /// Whether parts are to be larger from now on; if so, that is noted.
    pub fn take(&mut self, now: Millis, timing: &Timing) -> bool {
        let due = self.passed && self.at.is_none_or(|at| at <= now);
        if due {
            (self.tried, self.passed) = (true, false);
            self.wait(now, timing);
        }
        due
    }

    fn wait(&mut self, now: Millis, timing: &Timing) {
        let wait = millis(timing.widening).saturating_mul(1 << self.in_vain.min(IN_VAIN_MAX));
        self.at = Some(now.saturating_add(wait));
    }
}

/// Doublings of the wait for larger parts: from a week to a little more than a year.
const IN_VAIN_MAX: u32 = 6;

/// The sequence numbers heard from one sender.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Window {
    /// Heard, ascending; the last is the highest.
    #[n(0)]
    #[cbor(default, with = "packed")]
    recent: Vec<u64>,
    /// Everything up to here counts as old.
    #[n(1)]
    #[cbor(default)]
    floor: u64,
}

/// What a sequence number says about its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Higher than all before.
    Newest,
    /// Not heard before, but overtaken.
    Late,
    /// Too far behind to tell whether it was heard before.
    Old,
    /// Heard before.
    Repeated,
}

pub const RECENT_MAX: usize = 128;

impl Window {
    pub fn highest(&self) -> Option<u64> {
        self.recent.last().copied()
    }

    /// Notes `seq` and says what it is.
    pub fn hear(&mut self, seq: u64) -> Freshness {
        if seq <= self.floor {
            return Freshness::Old;
        }
        let freshness = match self.recent.binary_search(&seq) {
            Ok(_) => return Freshness::Repeated,
            Err(at) => {
                self.recent.insert(at, seq);
                if at + 1 == self.recent.len() { Freshness::Newest } else { Freshness::Late }
            }
        };
        if self.recent.len() > RECENT_MAX {
            self.floor = self.recent.remove(0);
        }
        freshness
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_follows_the_measured_round_trip() {
        let timing = Timing::default();
        let mut trip = RoundTrip::default();
        assert_eq!(trip.timeout(&timing), millis(timing.retry_first));
        (0..50).for_each(|_| trip.measure(3_600_000));
        let settled = trip.timeout(&timing);
        assert!((3_600_000..4_000_000).contains(&settled), "{settled}");
        trip.back_off();
        assert_eq!(trip.timeout(&timing), 2 * settled);
        (0..40).for_each(|_| trip.back_off());
        assert_eq!(trip.timeout(&timing), millis(timing.retry_max));
        let mut quick = RoundTrip::default();
        (0..50).for_each(|_| quick.measure(5));
        assert_eq!(quick.timeout(&timing), millis(timing.retry_min));
    }

    #[test]
    fn larger_parts_are_tried_after_a_while_that_doubles_with_each_refusal() {
        let timing = Timing::default();
        let week = millis(timing.widening);
        let mut widening = Widening::default();
        widening.narrowed(0, &timing);
        widening.narrowed(10, &timing);
        assert!(!widening.take(50 * week, &timing), "nothing of this size has passed");
        widening.pass();
        assert!(!widening.take(9 + week, &timing), "too early");
        assert!(widening.take(10 + week, &timing));
        assert!(!widening.take(50 * week, &timing), "nothing of the new size has passed");
        let mut now = 50 * week;
        for doubled in [2, 4, 8, 16, 32, 64, 64] {
            widening.narrowed(now, &timing);
            widening.pass();
            assert!(!widening.take(now + doubled * week - 1, &timing), "{doubled}");
            now += doubled * week;
            assert!(widening.take(now, &timing), "{doubled}");
        }
        // One that arrived is a step to the next.
        widening.pass();
        assert!(!widening.take(now + week, &timing) && widening.take(now + 64 * week, &timing));
    }

    #[test]
    fn a_window_tells_new_from_repeated() {
        let mut window = Window::default();
        assert_eq!(window.hear(10), Freshness::Newest);
        assert_eq!(window.hear(30), Freshness::Newest);
        assert_eq!(window.hear(20), Freshness::Late);
        assert_eq!(window.hear(20), Freshness::Repeated);
        assert_eq!(window.hear(30), Freshness::Repeated);
        for seq in 100..100 + RECENT_MAX as u64 {
            assert_eq!(window.hear(seq), Freshness::Newest);
        }
        assert_eq!(window.hear(20), Freshness::Old);
        assert_eq!(window.hear(25), Freshness::Old);
        assert_eq!(window.highest(), Some(99 + RECENT_MAX as u64));
    }
}
