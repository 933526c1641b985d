//! How bad a world is: every fault has a knob of its own, and a seed sets them all.

use bridgehead::replication::schedule::Schedule;

use super::dice::Dice;
use super::faults::Sabotage;
use super::world::{DAY, HOUR};

/// How bad the world is.
#[derive(Clone, Debug)]
pub struct Knobs {
    pub sites: usize,
    pub topology: Topology,
    /// In percent of mails or of inputs.
    pub loss: u64,
    pub twice: u64,
    pub replay: u64,
    pub crash: u64,
    /// Milliseconds on the way, at least and at most.
    pub delay: (i64, i64),
    pub skew: i64,
    /// Sites that are put back to an earlier day.
    pub restores: u64,
    pub part_bytes_max: u64,
    pub schedule: Schedule,
    pub day_bytes_max: Option<u64>,
    /// Nothing ever comes back from s1 to s0.
    pub one_way: bool,
    pub delete_percent_max: u8,
    /// Larger mails come back.
    pub passes_bytes_max: usize,
    /// People in the first commit of every site.
    pub bulk: u64,
    /// Commits in all, and the time they are spread over.
    pub commits: u64,
    pub busy: i64,
    pub sabotage: Sabotage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    Mesh,
    Line,
    Star,
    /// Every site has at most two below it.
    Tree,
}

impl Knobs {
    /// The world of a seed.
    pub fn from_seed(seed: u64) -> Knobs {
        let mut dice = Dice::new(seed ^ 0xABCD);
        let delay = *dice.pick(&[(1_000, 10_000), (1_000, 600_000), (60_000, HOUR), (HOUR, 3 * DAY)]);
        Knobs {
            sites: *dice.pick(&[2, 3, 3, 3, 3, 3, 4, 6]),
            topology: *dice.pick(&[Topology::Mesh, Topology::Line, Topology::Star, Topology::Tree]),
            loss: *dice.pick(&[0, 5, 20, 50]),
            twice: *dice.pick(&[0, 5, 30]),
            replay: *dice.pick(&[0, 0, 10]),
            crash: *dice.pick(&[0, 2, 10]),
            delay,
            skew: *dice.pick(&[0, 5_000, DAY]),
            restores: *dice.pick(&[0, 0, 0, 1, 2]),
            part_bytes_max: *dice.pick(&[16 << 10, 1 << 20]),
            schedule: Schedule::Always,
            day_bytes_max: None,
            one_way: false,
            delete_percent_max: 100,
            passes_bytes_max: *dice.pick(&[usize::MAX, usize::MAX, 40_000]),
            bulk: *dice.pick(&[0, 0, 0, 0, 0, 0, 0, 40]),
            commits: 5 + dice.below(15),
            busy: delay.1 * dice.between(1, 5),
            sabotage: Sabotage::None,
        }
    }
}

impl Topology {
    pub fn neighbours(self, n: usize, of: usize) -> Vec<usize> {
        match self {
            Topology::Mesh => (0..of).filter(|&m| m != n).collect(),
            Topology::Line => (0..of).filter(|&m| m.abs_diff(n) == 1).collect(),
            Topology::Star if n == 0 => (1..of).collect(),
            Topology::Star => vec![0],
            Topology::Tree => {
                let above = (n > 0).then(|| (n - 1) / 2);
                above.into_iter().chain([2 * n + 1, 2 * n + 2].into_iter().filter(|&m| m < of)).collect()
            }
        }
    }
}
