//! Two sites, introduced to each other, and the mail between them.

use std::net::SocketAddr;

use super::{Plan, Postfix, Recorder, SOON, Scratch, Site, await_true, free_address};

/// Two sites whose mail goes straight from one daemon to the other.
pub struct Direct {
    pub paris: Site,
    pub tokyo: Site,
    pub scratch: Scratch,
}

impl Direct {
    /// Configured, not started.
    pub fn prepare(test: &str) -> Direct {
        let scratch = Scratch::new(test);
        let (at_paris, at_tokyo) = (free_address(), free_address());
        let paris = Site::init(&scratch, "paris", at_paris, at_tokyo);
        let tokyo = Site::init(&scratch, "tokyo", at_tokyo, at_paris);
        paris.introduce(&tokyo);
        Direct { paris, tokyo, scratch }
    }

    pub fn start(test: &str) -> Direct {
        let mut pair = Direct::prepare(test);
        pair.paris.start();
        pair.tokyo.start();
        pair
    }
}

/// Two sites, each behind a Postfix of its own; the two Postfixes deliver to each other.
pub struct BehindPostfix {
    pub paris: Site,
    pub tokyo: Site,
    pub paris_mta: Postfix,
    pub tokyo_mta: Postfix,
    /// Where mail for people at either site ends, and what bounces to anybody outside.
    pub people: Recorder,
    pub scratch: Scratch,
}

impl BehindPostfix {
    /// `recipe` is a directory of contrib/postfix, for Paris; Tokyo takes `replication-mail`.
    pub fn start(test: &str, recipe: &str) -> BehindPostfix {
        let scratch = Scratch::new(test);
        let people = Recorder::start();
        let mut at_paris = Postfix::plan(&scratch, "paris");
        let mut at_tokyo = Postfix::plan(&scratch, "tokyo");
        let (mx_paris, mx_tokyo) = (at_paris.address, at_tokyo.address);
        wire(&mut at_paris, "tokyo", mx_tokyo, &people);
        wire(&mut at_tokyo, "paris", mx_paris, &people);
        let (mut paris, paris_mta) = join(&scratch, "paris", at_paris, recipe);
        let (mut tokyo, tokyo_mta) = join(&scratch, "tokyo", at_tokyo, "replication-mail");
        paris.introduce(&tokyo);
        paris.start();
        tokyo.start();
        BehindPostfix { paris, tokyo, paris_mta, tokyo_mta, people, scratch }
    }

    /// Until neither Postfix has anything left to deliver.
    pub fn await_empty_queues(&self) {
        await_true("empty queues", SOON, || {
            self.paris_mta.queue_is_empty() && self.tokyo_mta.queue_is_empty()
        });
    }
}

/// What MX records would say.
fn wire(plan: &mut Plan, other: &str, mx_of_other: SocketAddr, people: &Recorder) {
    plan.route(&format!("{other}.example"), mx_of_other);
    plan.route(&format!("repl.{other}.example"), mx_of_other);
    plan.route(if other == "tokyo" { "paris.example" } else { "tokyo.example" }, people.address);
    plan.route("outside.example", people.address);
}

/// A site with its bridgehead beside its Postfix, as the recipe has it.
fn join(scratch: &Scratch, name: &str, mut plan: Plan, recipe: &str) -> (Site, Postfix) {
    let (own, back) = (free_address(), free_address());
    plan.apply(recipe, own, back);
    let next_hop = if plan.listens_at(back) { back } else { plan.address };
    let site = Site::init(scratch, name, own, next_hop);
    (site, plan.start())
}
