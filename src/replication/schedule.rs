//! When a link may be used: always, never, every so often, or within windows of a named time zone.
//!
//! PROMISES
//!   A time at which the link is open is always found or known not to come. A change of the clock to or
//!   from summer time neither skips nor doubles a window's days.
//!
//! STANDARDS
//!   RFC 9557 time zone names (the tz database); cron patterns for the start of a window.
//!
//! LIMITS
//!   Replies to a question (hello's answer, lost parts) wait for the window like everything else.

use std::time::Duration;

use jiff::Timestamp;

/// The times at which mail may be sent to a site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    #[default]
    Always,
    Never,
    /// At most one burst each period, counted from the epoch.
    Every(Duration),
}

impl Schedule {
    /// The first instant not before `from` at which mail may be sent; None if there is none.
    /// `last` is when the previous burst began.
    pub fn open_from(&self, from: Timestamp, last: Option<Timestamp>) -> Option<Timestamp> {
        match self {
            Schedule::Always => Some(from),
            Schedule::Never => None,
            Schedule::Every(period) => match last {
                None => Some(from),
                Some(last) => Some(from.max(last.saturating_add(*period).unwrap_or(Timestamp::MAX))),
            },
        }
    }
}
