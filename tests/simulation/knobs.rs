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
    /// In a mesh, too, every site passes on what the others master: there are circles.
    pub circles: bool,
    /// In percent of mails or of inputs.
    pub loss: u64,
    pub twice: u64,
    pub replay: u64,
    pub crash: u64,
    /// Mails altered on the way: the receiver refuses them, for their seal does not hold.
    pub corrupt: u64,
    /// Inputs at which the disk is full.
    pub disk_full: u64,
    /// Lost mails of which the sender is told, and mails that the next hop refuses.
    pub bounce: u64,
    pub refuse: u64,
    /// Milliseconds on the way, at least and at most.
    pub delay: (i64, i64),
    pub skew: i64,
    /// Clocks that are set anew.
    pub clocks: u64,
    /// Sites that are put back to an earlier day.
    pub restores: u64,
    /// Sites of which a copy lives on beside them for a time.
    pub clones: u64,
    /// Copies get no mail: all of it goes to the site itself.
    pub deaf: bool,
    /// Links that are cut for a time, in one direction or both.
    pub cuts: u64,
    /// Things that operators do: pause, detach, purge, synchronise, verify.
    pub operators: u64,
    /// Sites that renew their keys, and that move to another mailbox.
    pub rolls: u64,
    pub moves: u64,
    /// Sites that get another name.
    pub renames: u64,
    /// The last site comes later, and the others learn of it one by one.
    pub late: bool,
    /// Site 0 alters, replays, withholds and forges.
    pub malicious: bool,
    /// Times at which another size of mail passes.
    pub resizes: u64,
    pub part_bytes_max: u64,
    pub schedule: Schedule,
    pub day_bytes_max: Option<u64>,
    /// Nothing ever comes back from the last site.
    pub one_way: bool,
    pub delete_percent_max: u8,
    /// Larger mails come back.
    pub passes_bytes_max: usize,
    /// Vectors of at most so many naming contexts go whole.
    pub vector_whole_max: usize,
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
    /// Every site has at most ten below it.
    Wide,
}

impl Knobs {
    /// Two sites, good mail, little to do.
    pub fn calm() -> Knobs {
        Knobs {
            sites: 2,
            topology: Topology::Mesh,
            circles: false,
            loss: 0,
            twice: 0,
            replay: 0,
            crash: 0,
            corrupt: 0,
            disk_full: 0,
            bounce: 0,
            refuse: 0,
            delay: (1_000, 3_000),
            skew: 0,
            clocks: 0,
            restores: 0,
            clones: 0,
            deaf: false,
            cuts: 0,
            operators: 0,
            rolls: 0,
            moves: 0,
            renames: 0,
            late: false,
            malicious: false,
            resizes: 0,
            part_bytes_max: 1 << 20,
            passes_bytes_max: usize::MAX,
            schedule: Schedule::Always,
            day_bytes_max: None,
            one_way: false,
            delete_percent_max: 100,
            vector_whole_max: 0,
            bulk: 0,
            commits: 4,
            busy: 60_000,
            sabotage: Sabotage::None,
        }
    }

    /// The world of a seed.
    pub fn from_seed(seed: u64) -> Knobs {
        let mut dice = Dice::new(seed ^ 0xABCD);
        let delays = [(1_000, 10_000), (1_000, 600_000), (60_000, HOUR), (HOUR, 3 * DAY), (DAY, 21 * DAY)];
        let delay = delays[*dice.pick(&[0, 0, 1, 1, 2, 2, 3, 3, 4])];
        let (sites, topology) = shape(&mut dice);
        let large = sites > 8;
        let mut knobs = Knobs {
            sites,
            topology,
            loss: *dice.pick(&[0, 5, 20, 50]),
            twice: *dice.pick(&[0, 5, 30]),
            replay: *dice.pick(&[0, 0, 10]),
            crash: *dice.pick(&[0, 2, 10]),
            corrupt: *dice.pick(&[0, 0, 10]),
            disk_full: *dice.pick(&[0, 0, 0, 5]),
            bounce: *dice.pick(&[0, 0, 50]),
            refuse: *dice.pick(&[0, 0, 0, 10]),
            delay,
            skew: *dice.pick(&[0, 5_000, DAY]),
            clocks: *dice.pick(&[0, 0, 0, 2]),
            restores: *dice.pick(&[0, 0, 0, 1, 2]),
            clones: *dice.pick(&[0, 0, 0, 0, 0, 0, 0, 1]),
            deaf: seed % 5 == 2,
            cuts: *dice.pick(&[0, 0, 1, 4]),
            operators: *dice.pick(&[0, 0, 0, 4]),
            late: *dice.pick(&[false, false, false, false, false, true]),
            malicious: *dice.pick(&[false, false, false, false, false, false, false, true]),
            resizes: *dice.pick(&[0, 0, 0, 2]),
            part_bytes_max: *dice.pick(&[16 << 10, 1 << 20]),
            delete_percent_max: *dice.pick(&[100, 100, 20]),
            one_way: *dice.pick(&[false, false, false, false, false, false, false, true]),
            passes_bytes_max: *dice.pick(&[usize::MAX, usize::MAX, 40_000]),
            bulk: *dice.pick(&[0, 0, 0, 0, 0, 0, 0, 40]),
            commits: 5 + dice.below(15),
            busy: delay.1 * dice.between(1, 5),
            rolls: *dice.pick(&[0, 0, 0, 0, 0, 0, 1, 3]),
            moves: *dice.pick(&[0, 0, 0, 0, 0, 0, 0, 2]),
            ..Knobs::calm()
        };
        // Without chance, so that the other knobs of a seed stay what they were.
        match seed % 16 {
            3 | 11 => knobs.day_bytes_max = Some(60_000),
            _ if knobs.restores > 0 => {}
            5 => knobs.schedule = "Mon-Sun 02:00-03:00".parse().expect("a sound schedule"),
            9 => knobs.schedule = "Mon-Fri 18:00-06:00 Europe/Berlin".parse().expect("a sound schedule"),
            _ => {}
        }
        knobs.vector_whole_max = [0, 0, 0, 3][seed as usize % 4];
        knobs.circles = topology == Topology::Mesh && seed % 7 == 4;
        if large {
            // Many contexts, little in each.
            knobs.bulk = 0;
            knobs.busy = delay.1 * 2;
            knobs.restores = knobs.restores.min(1);
        }
        // Two lives at one time are for their operators alone, at the end.
        knobs.operators = if knobs.clones > 0 { 0 } else { knobs.operators };
        // A copy reads mail that nobody repeats to the site itself, and nobody can ask for it.
        knobs.clones = if knobs.one_way { 0 } else { knobs.clones };
        // Two lives of one site have one key file, which only one of them renews.
        knobs.rolls = if knobs.clones > 0 { 0 } else { knobs.rolls };
        knobs.moves = if knobs.clones > 0 { 0 } else { knobs.moves };
        // The site that comes late and the one that nobody hears are both the last.
        knobs.late &= sites > 2 && !knobs.one_way;
        // One name at a time: a copy would have the former one, and who is not there or not heard cannot be told.
        let told = !knobs.late && !knobs.one_way && knobs.clones == 0;
        knobs.renames = u64::from(told && seed % 23 == 7);
        knobs
    }
}

/// Most worlds are small, some are not.
fn shape(dice: &mut Dice) -> (usize, Topology) {
    let all = [Topology::Mesh, Topology::Line, Topology::Star, Topology::Tree];
    let sites = match dice.below(200) {
        0 => dice.between(21, 50),
        1..=3 => dice.between(9, 20),
        _ => *dice.pick(&[2, 2, 3, 3, 3, 3, 3, 4, 4, 5, 6]),
    } as usize;
    let few = if sites > 8 { &all[1..] } else { &all[..] };
    (sites, *dice.pick(few))
}

impl Topology {
    pub fn neighbours(self, n: usize, of: usize) -> Vec<usize> {
        match self {
            Topology::Mesh => (0..of).filter(|&m| m != n).collect(),
            Topology::Line => (0..of).filter(|&m| m.abs_diff(n) == 1).collect(),
            Topology::Star if n == 0 => (1..of).collect(),
            Topology::Star => vec![0],
            Topology::Tree => tree(n, of, 2),
            Topology::Wide => tree(n, of, 10),
        }
    }

    /// Links on the way between the two sites that are farthest apart.
    pub fn hops(self, of: usize) -> i64 {
        match self {
            Topology::Mesh => 1,
            Topology::Line => of as i64 - 1,
            Topology::Star => 2,
            Topology::Tree => 2 * i64::from(of.ilog2()),
            Topology::Wide => 2 * i64::from(of.ilog(10) + 1),
        }
    }
}

/// The neighbours of a site in a tree in which every site has so many below it.
fn tree(n: usize, of: usize, below: usize) -> Vec<usize> {
    let above = (n > 0).then(|| (n - 1) / below);
    above.into_iter().chain((below * n + 1..=below * n + below).filter(|&m| m < of)).collect()
}
