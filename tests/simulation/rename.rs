//! A site gets another name, as bridgehead.toml(5) says under `former_names`: the others detach the former name, and
//! learn the new one each at a time of its own.

use bridgehead::directory::context::{ContextRecord, contexts, put_context};
use bridgehead::replication::engine::{Input, KnownSite};

use super::site::{Crash, Site};
use super::staff::Act;
use super::world::{Happening, START, World};

impl World {
    /// Some site gets another name on one of the busy days.
    pub fn plan_rename(&mut self) {
        let n = self.dice.below(self.knobs.sites as u64) as usize;
        let at = self.moment(0);
        self.plan(START + at, Happening::Operate(n, Act::Rename));
        for m in (0..self.knobs.sites).filter(|m| *m != n) {
            let known = self.moment(at);
            self.plan(START + known + 1, Happening::Operate(m, Act::Know(n)));
        }
    }

    pub fn rename(&mut self, n: usize) {
        let former = self.sites[n].name.clone();
        let name = format!("{former}-new");
        self.note(|site| format!("{} is called {name} from now on", site(n)));
        for m in (0..self.knobs.sites).filter(|m| *m != n) {
            if self.sites[m].config.partner(&former).is_some() {
                self.detach(m, n, false);
            }
            self.sites[m].forget(&former, &name);
            self.input(m, Input::Start, Crash::No);
        }
        let now = self.sites[n].clock(self.now);
        let site = &mut self.sites[n];
        for own in site.whole.known.iter_mut().filter(|known| known.site == former) {
            own.site.clone_from(&name);
        }
        site.former_names.push(former);
        (site.name, site.whole.site) = (name.clone(), name.clone());
        if let Some(identity) = &mut site.identity {
            identity.rename(name, now);
        }
        site.adopt();
        site.configure();
        self.input(n, Input::Start, Crash::No);
    }
}

/// After all became equal: whatever is held goes by its master's present name.
pub fn problem(sites: &[Site]) -> Option<String> {
    sites.iter().find_map(|site| {
        let all = contexts(&site.store).expect("the store is sound");
        all.into_iter().find_map(|record| {
            let master = sites.iter().find(|master| master.own().dn == record.dn)?;
            (record.master != master.name).then(|| {
                format!(
                    "{} takes {} for the master of {}, not {}",
                    site.name, record.master, record.dn, master.name
                )
            })
        })
    })
}

impl Site {
    /// What the store holds under a former name of this site is its own: what the daemon sees to when it starts.
    pub fn adopt(&mut self) {
        let all = contexts(&self.store).expect("the store is sound");
        let mut tx = self.store.begin();
        for record in all.into_iter().filter(|record| self.former_names.contains(&record.master)) {
            let own = ContextRecord { master: self.name.clone(), ..record };
            put_context(&mut tx, &own).expect("the store in memory does not fail");
        }
        tx.commit();
    }

    /// Another site, known by its former name, is not known by its present one yet.
    fn forget(&mut self, former: &str, present: &str) {
        if let Some(identity) = &mut self.identity {
            identity.forget(former);
        }
        self.whole.known.retain(|known| known.site != former);
        for partner in self.whole.partners.iter_mut().filter(|partner| partner.site == former) {
            partner.site = present.to_owned();
        }
        self.unknown.remove(former);
        self.unknown.insert(present.to_owned());
        self.configure();
    }

    /// What others know of it.
    pub fn as_known(&self) -> KnownSite {
        KnownSite {
            site: self.name.clone(),
            key: self.whole.key.verifying_key(),
            contexts: vec![self.own().dn.to_string()],
            former: Vec::new(),
            card: None,
        }
    }

    /// Another site is known, if it was not.
    pub fn learn(&mut self, other: KnownSite) {
        if self.whole.known.iter().all(|known| known.site != other.site) {
            self.whole.known.push(other);
        }
    }
}
