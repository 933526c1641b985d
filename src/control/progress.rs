//! What a long command has done so far: one line of a terminal, written over and over.
//!
//! LIMITS
//!   At most five lines a second; nothing where nobody looks.

use std::io::Write;
use std::time::{Duration, Instant};

const PER_SECOND: u32 = 5;
/// Back to the first column, and everything behind the cursor erased (ECMA-48 EL).
const CLEAR: &str = "\r\x1b[K";
const BAR: usize = 30;

/// A line on a terminal.
pub struct Progress<'o> {
    out: &'o mut dyn Write,
    shown: bool,
    last: Option<Instant>,
    began: Instant,
}

impl<'o> Progress<'o> {
    /// `shown`: somebody looks.
    pub fn new(out: &'o mut dyn Write, shown: bool) -> Progress<'o> {
        Progress { out, shown, last: None, began: Instant::now() }
    }

    /// So many records of a file whose length nobody knows.
    pub fn records(&mut self, done: u64) {
        self.line(|rate| format!("{done} records, {rate} a second", rate = rate(done)));
    }

    /// So many entries of as many.
    pub fn entries(&mut self, done: u64, of: u64) {
        self.line(|rate| {
            let full = (BAR as u64 * done / of.max(1)).min(BAR as u64) as usize;
            let bar = format!("{}{}", "#".repeat(full), ".".repeat(BAR - full));
            format!("[{bar}] {done} of {of} entries, {rate} a second", rate = rate(done))
        });
    }

    fn line(&mut self, text: impl FnOnce(&dyn Fn(u64) -> u64) -> String) {
        let due = self.last.is_none_or(|last| last.elapsed() >= Duration::from_secs(1) / PER_SECOND);
        if self.shown && due {
            self.last = Some(Instant::now());
            let seconds = self.began.elapsed().as_secs_f64().max(0.001);
            let rate = |done: u64| (done as f64 / seconds) as u64;
            self.write(&format!("{CLEAR}{}", text(&rate)));
        }
    }

    /// Takes the line away, before anything else is said.
    pub fn clear(&mut self) {
        if self.last.is_some() {
            self.write(CLEAR);
        }
    }

    fn write(&mut self, text: &str) {
        // A terminal that is gone is no reason to stop.
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_over_and_taken_away_and_nothing_is_where_nobody_looks() {
        let mut out = Vec::new();
        let mut bar = Progress::new(&mut out, true);
        bar.entries(50, 100);
        bar.entries(51, 100);
        bar.clear();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("[###############...............] 50 of 100 entries"), "{text:?}");
        assert!(!text.contains("51 of"), "not so often");
        assert!(text.ends_with(CLEAR));
        let mut silent = Vec::new();
        let mut bar = Progress::new(&mut silent, false);
        bar.records(7);
        bar.clear();
        assert!(silent.is_empty());
    }
}
