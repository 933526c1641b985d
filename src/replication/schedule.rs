//! When a link may be used: always, never, every so often, or within weekly windows of a time zone.
//!
//! PROMISES
//!   A time at which the link is open is always found or known not to come. The change to or from summer
//!   time moves a window with the clock on the wall; it neither skips nor doubles one.
//!
//! FORM
//!   ```text
//!   always | never | every 4h | every 90m
//!   Mon-Fri 18:00-06:00, Sat 00:00-24:00, Sun 12:00-18:00 Europe/Berlin
//!   ```
//!   A window that ends at or before its start ends on the next day. Without a zone it is UTC.
//!
//! STANDARDS
//!   Time zones by their names in the tz database (RFC 6557, RFC 9557).
//!
//! LIMITS
//!   Replies to a question (hello's answer, lost parts) wait for the window like everything else.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use thiserror::Error;

/// The times at which mail may be sent to a site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    #[default]
    Always,
    Never,
    /// At most one burst each period, from when the last began.
    Every(Duration),
    Windows {
        zone: TimeZone,
        windows: Vec<Window>,
    },
}

/// Open on these days from `from` to `to`, in minutes after midnight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Monday first.
    pub days: [bool; 7],
    pub from: u16,
    /// At or below `from`: of the next day.
    pub to: u16,
}

/// Whoever wrote the schedule is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScheduleError {
    #[error("{0:?} is not a period, like 90m or 4h")]
    Period(String),
    #[error("{0:?} is not a window, like Mon-Fri 18:00-06:00")]
    Window(String),
    #[error("{0:?} is not a time zone of the tz database")]
    Zone(String),
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
            Schedule::Windows { zone, windows } => {
                let today = from.to_zoned(zone.clone()).date();
                // Yesterday's window may reach into today; a week later everything repeats.
                let days = (-1..=8).filter_map(|offset: i64| today.checked_add(offset.days()).ok());
                let spans = days.flat_map(|day| windows.iter().filter_map(move |w| w.span(day, zone)));
                spans.filter(|(_, end)| *end > from).map(|(start, _)| start.max(from)).min()
            }
        }
    }
}

impl Window {
    /// When the window of this day begins and ends.
    fn span(&self, day: Date, zone: &TimeZone) -> Option<(Timestamp, Timestamp)> {
        if !self.days[day.weekday().to_monday_zero_offset() as usize] {
            return None;
        }
        let end_day = if self.to <= self.from { day.tomorrow().ok()? } else { day };
        Some((instant(day, self.from, zone)?, instant(end_day, self.to, zone)?))
    }
}

fn instant(day: Date, minutes: u16, zone: &TimeZone) -> Option<Timestamp> {
    let (day, minutes) = if minutes >= DAY_MINUTES { (day.tomorrow().ok()?, 0) } else { (day, minutes) };
    let time = day.at((minutes / 60) as i8, (minutes % 60) as i8, 0, 0);
    time.to_zoned(zone.clone()).ok().map(|zoned| zoned.timestamp())
}

const DAY_MINUTES: u16 = 24 * 60;

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Schedule, ScheduleError> {
        let text = text.trim();
        match text.to_ascii_lowercase().as_str() {
            "always" => return Ok(Schedule::Always),
            "never" => return Ok(Schedule::Never),
            _ => {}
        }
        if let Some(every) = text.strip_prefix("every ") {
            return period(every.trim())
                .map(Schedule::Every)
                .ok_or_else(|| ScheduleError::Period(every.into()));
        }
        let (windows, zone) = match text.rsplit_once(' ') {
            Some((windows, last)) if !last.contains(':') => {
                (windows, TimeZone::get(last).map_err(|_| ScheduleError::Zone(last.into()))?)
            }
            _ => (text, TimeZone::UTC),
        };
        let wrong = |window: &str| ScheduleError::Window(window.trim().into());
        let windows = windows.split(',').map(|text| window(text.trim()).ok_or_else(|| wrong(text)));
        Ok(Schedule::Windows { zone, windows: windows.collect::<Result<_, _>>()? })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Schedule::Always => f.write_str("always"),
            Schedule::Never => f.write_str("never"),
            Schedule::Every(period) => write!(f, "every {}m", period.as_secs() / 60),
            Schedule::Windows { zone, windows } => {
                for (n, window) in windows.iter().enumerate() {
                    let comma = if n > 0 { ", " } else { "" };
                    let days: Vec<&str> =
                        (0..7).filter(|&day| window.days[day]).map(|day| DAYS[day]).collect();
                    let time = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
                    write!(f, "{comma}{} {}-{}", days.join("+"), time(window.from), time(window.to))?;
                }
                match zone.iana_name() {
                    Some(name) => write!(f, " {name}"),
                    None => Ok(()),
                }
            }
        }
    }
}

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

fn period(text: &str) -> Option<Duration> {
    let unit = match text.chars().last()? {
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let number: u64 = text[..text.len() - 1].parse().ok()?;
    (1..=PERIOD_MAX).contains(&number).then(|| Duration::from_secs(number * unit))
}

const PERIOD_MAX: u64 = 10_000;

fn window(text: &str) -> Option<Window> {
    let (days, times) = text.split_once(' ')?;
    let (from, to) = times.trim().split_once('-')?;
    Some(Window {
        days: self::days(days)?,
        from: minutes(from).filter(|&at| at < DAY_MINUTES)?,
        to: minutes(to)?,
    })
}

/// `Mon`, `Mon-Fri`, `Mon+Wed`.
fn days(text: &str) -> Option<[bool; 7]> {
    let mut open = [false; 7];
    let number = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
    for piece in text.split('+') {
        let (first, last) = match piece.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(piece)?, number(piece)?),
        };
        let length = (last + 7 - first) % 7;
        (0..=length).for_each(|n| open[(first + n) % 7] = true);
    }
    Some(open)
}

fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let all = hours.checked_mul(60)?.checked_add(minutes)?;
    (minutes < 60 && all <= DAY_MINUTES).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn opens(schedule: &str, from: &str) -> Option<Timestamp> {
        schedule.parse::<Schedule>().unwrap().open_from(at(from), None)
    }

    #[test]
    fn windows_open_by_the_clock_on_the_wall() {
        let nights = "Mon-Fri 18:00-06:00 Europe/Berlin";
        // 2026-11-20 is a Friday; Berlin is UTC+1.
        assert_eq!(opens(nights, "2026-11-20T12:00:00Z"), Some(at("2026-11-20T17:00:00Z")));
        assert_eq!(opens(nights, "2026-11-21T03:00:00Z"), Some(at("2026-11-21T03:00:00Z")));
        assert_eq!(opens(nights, "2026-11-21T05:00:00Z"), Some(at("2026-11-23T17:00:00Z")));
        // In summer the same clock is UTC+2.
        assert_eq!(opens(nights, "2026-07-01T12:00:00Z"), Some(at("2026-07-01T16:00:00Z")));
    }

    #[test]
    fn a_window_in_the_hour_that_summer_time_skips_still_opens() {
        // On 2026-03-29 Berlin goes from 02:00 to 03:00.
        let early = "Sun 02:15-02:45 Europe/Berlin";
        let open = opens(early, "2026-03-28T12:00:00Z").unwrap();
        assert!(open < at("2026-03-29T02:00:00Z"), "{open}");
    }

    #[test]
    fn always_never_and_every() {
        let now = "2026-11-20T12:00:00Z";
        assert_eq!(opens("always", now), Some(at(now)));
        assert_eq!(opens("never", now), None);
        let every: Schedule = "every 4h".parse().unwrap();
        let last = at("2026-11-20T11:00:00Z");
        assert_eq!(every.open_from(at(now), Some(last)), Some(at("2026-11-20T15:00:00Z")));
        assert_eq!(every.open_from(at(now), None), Some(at(now)));
    }

    #[test]
    fn what_is_written_is_read() {
        for text in ["always", "never", "every 240m", "Mon+Wed 08:00-12:00, Sun 00:00-24:00 Asia/Tokyo"] {
            assert_eq!(text.parse::<Schedule>().unwrap().to_string(), text);
        }
        assert_eq!("Mon 08:00-12:00".parse::<Schedule>().unwrap().to_string(), "Mon 08:00-12:00 UTC");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in
            ["", "every", "every 0h", "every 4x", "Mon", "Mon 8", "Mon 25:00-26:00", "Xyz 08:00-09:00"]
        {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
        assert_eq!(
            "Mon 08:00-12:00 Middle/Earth".parse::<Schedule>(),
            Err(ScheduleError::Zone("Middle/Earth".into()))
        );
    }
}
