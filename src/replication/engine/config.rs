//! What the engine is told by the configuration: who we are, whom we know, how patient we are.

use std::collections::HashMap;
use std::time::Duration;

use ed25519_dalek::{SigningKey, VerifyingKey};

use crate::directory::ContextRecord;
use crate::limits;
use crate::replication::schedule::Schedule;

/// The engine's configuration, as meant.
#[derive(Clone)]
pub struct EngineConfig {
    /// Our own site's name.
    pub site: String,
    /// Signs the checkpoints of the naming contexts that we master.
    pub key: SigningKey,
    /// Our card, as sent in the hello.
    pub card: String,
    pub succession: Succession,
    /// Every site whose card is pinned, linked to us or not: whose word on a naming context counts.
    pub known: Vec<KnownSite>,
    /// The sites that we exchange mail with.
    pub partners: Vec<Partner>,
    pub timing: Timing,
}

/// A site whose card is pinned.
#[derive(Clone)]
pub struct KnownSite {
    pub site: String,
    /// Verifies this site's checkpoints.
    pub key: VerifyingKey,
    /// Keys that it had before; they count for what is still under way.
    pub former: Vec<FormerKey>,
    /// Its card as pinned; None: it has none, and what it tells is not looked at.
    pub card: Option<PinnedCard>,
    /// The naming contexts that it masters, as DNs.
    pub contexts: Vec<String>,
}

/// How others get from our former cards to the present one, and to those of the sites behind us.
#[derive(Clone, Debug, Default)]
pub struct Succession {
    /// The serial of our card; 0: nobody needs to know it.
    pub serial: u64,
    /// Our cards before this one, oldest first.
    pub former_cards: Vec<String>,
    /// Our signing keys before this one, newest first.
    pub former_keys: Vec<VerifyingKey>,
    /// Our word for other sites, as signed: the site's name, and the statement.
    pub introductions: Vec<(String, String)>,
    /// The largest part that our own mail system takes in, in octets of payload; 0: as much as the link's.
    pub takes_bytes_max: u64,
}

/// A key that a site had before it renewed its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormerKey {
    pub key: VerifyingKey,
    /// From then on it does not count any more; milliseconds since 1970, UTC.
    pub until: i64,
}

/// Of a pinned card, what the engine needs to see that a site tells another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedCard {
    pub serial: u64,
    pub text: String,
    /// The cards before it that we know, oldest first.
    pub former: Vec<String>,
}

/// A site that we exchange mail with.
#[derive(Clone, Debug)]
pub struct Partner {
    pub site: String,
    /// The naming contexts that we take from it.
    pub inbound: Passage,
    /// The naming contexts that we send to it; a hub passes on more than its own.
    pub outbound: Passage,
    pub schedule: Schedule,
    /// The largest message that may be sent to it, in bytes of payload; its own limit may lower this.
    pub part_bytes_max: u64,
    /// Bytes of payload a day; none: no budget.
    pub day_bytes_max: Option<u64>,
    /// Hold a transfer that would delete more than this share of a naming context, in percent.
    pub delete_percent_max: u8,
    /// Nothing is sent until this is lifted; what comes in is still taken.
    pub paused: bool,
    /// Nothing ever comes back from this site (a data diode).
    pub one_way: bool,
}

impl Partner {
    /// Whether what we, the site `own`, hold of a naming context goes to this site.
    pub fn gets(&self, own: &str, record: &ContextRecord) -> bool {
        record.master != self.site
            && match &self.outbound {
                Passage::Own => record.master == own,
                passage => passage.lets(&record.dn.to_string()),
            }
    }

    /// Whether a naming context that `master` masters, if that is known, comes from this site.
    pub fn gives(&self, master: Option<&str>, context: &str) -> bool {
        match &self.inbound {
            Passage::Own => master == Some(&self.site),
            passage => passage.lets(context),
        }
    }
}

/// Which naming contexts may pass a link in one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Passage {
    #[default]
    All,
    /// Outbound: what we master. Inbound: what the partner masters.
    Own,
    /// Only these, as DNs.
    Only(Vec<String>),
    /// All but these, as DNs.
    Except(Vec<String>),
}

impl Passage {
    /// Whether the list names it; [`Passage::Own`] depends on the master and lists nothing.
    pub fn lets(&self, context: &str) -> bool {
        let listed = |list: &[String]| list.iter().any(|name| same_context(name, context));
        match self {
            Passage::All | Passage::Own => true,
            Passage::Only(list) => listed(list),
            Passage::Except(list) => !listed(list),
        }
    }
}

/// How patient the engine is. All of it in units that mail has: seconds to days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A local change waits this long for company.
    pub batching: Duration,
    /// What was applied is acknowledged after this long, if no message of ours goes that way sooner.
    pub acknowledgement: Duration,
    /// A gap is given this long to fill by itself before it is asked for.
    pub gap: Duration,
    /// At least one message goes to each site in this time.
    pub heartbeat: Duration,
    /// The retransmission timeout before the first measured round trip, and its bounds (RFC 6298).
    pub retry_first: Duration,
    pub retry_min: Duration,
    pub retry_max: Duration,
    /// After parts became smaller, for mail came back as too large, larger ones are not tried for so long. Limits of mail
    /// systems change with their administrators' work, in weeks; a try costs one mail that comes back.
    pub widening: Duration,
    /// On a link without answers everything is sent again after this.
    pub repeat: Duration,
    /// A site that was not heard for this many heartbeats is quiet.
    pub quiet_heartbeats: u32,
    /// Bytes of parts that may be unacknowledged.
    pub window_bytes: u64,
    /// Transfers that may be chained without an acknowledgement.
    pub chain_max: usize,
    /// Commits of a naming context of which it is remembered what they touched. A site that is further
    /// behind than these gets a full load.
    pub log_commits_max: u64,
    /// Octets of kept copies, of what connected sites sent and of other mail half each.
    pub quarantine_bytes_max: u64,
    /// Octets of unfinished transfers of one site, beside the largest of them.
    pub inbox_bytes_max: u64,
    /// A vector of at most so many naming contexts goes whole in every message.
    pub vector_whole_max: usize,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            batching: Duration::from_secs(2),
            acknowledgement: Duration::from_secs(2),
            gap: Duration::from_secs(10),
            heartbeat: Duration::from_secs(6 * 3600),
            retry_first: Duration::from_secs(300),
            retry_min: Duration::from_secs(20),
            retry_max: Duration::from_secs(2 * 86400),
            widening: Duration::from_secs(7 * 86400),
            repeat: Duration::from_secs(7 * 86400),
            quiet_heartbeats: 3,
            window_bytes: 256 << 20,
            chain_max: 32,
            log_commits_max: limits::LOG_COMMITS,
            quarantine_bytes_max: limits::QUARANTINE_BYTES,
            inbox_bytes_max: limits::INBOX_BYTES,
            vector_whole_max: 1,
        }
    }
}

impl Partner {
    /// A partner with nothing special about it.
    pub fn new(site: impl Into<String>) -> Partner {
        Partner {
            site: site.into(),
            inbound: Passage::All,
            outbound: Passage::Own,
            schedule: Schedule::Always,
            part_bytes_max: 1 << 20,
            day_bytes_max: None,
            delete_percent_max: 100,
            paused: false,
            one_way: false,
        }
    }
}

/// By the name of a naming context in lower case: which of the known sites masters it.
pub type Masters = HashMap<String, usize>;

impl EngineConfig {
    pub(super) fn masters(&self) -> Masters {
        let mut masters = Masters::new();
        for (at, known) in self.known.iter().enumerate() {
            for name in &known.contexts {
                masters.entry(name.to_ascii_lowercase()).or_insert(at);
            }
        }
        masters
    }

    pub fn partner(&self, site: &str) -> Option<&Partner> {
        self.partners.iter().find(|partner| partner.site == site)
    }

    pub fn known(&self, site: &str) -> Option<&KnownSite> {
        self.known.iter().find(|known| known.site == site)
    }

    /// The site whose pinned card says that it masters `context`.
    pub fn master(&self, context: &str) -> Option<&KnownSite> {
        self.known.iter().find(|known| known.contexts.iter().any(|name| same_context(name, context)))
    }
}

impl KnownSite {
    /// The keys whose word counts at this time, the present one first.
    pub fn keys(&self, now: i64) -> impl Iterator<Item = &VerifyingKey> {
        let former = self.former.iter().filter(move |former| now < former.until).map(|former| &former.key);
        std::iter::once(&self.key).chain(former)
    }
}

/// Attribute types and the names in a naming context's DN compare without regard to case.
pub fn same_context(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}
