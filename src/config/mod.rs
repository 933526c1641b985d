//! The configuration: TOML text to [`Config`] as meant; once it returns, no value is in doubt.
//!
//! PROMISES
//!   Every problem of every file is found in one pass and names its file and line. A configuration with
//!   a problem is never in force, not even in part.

pub mod bounds;
pub mod partner;
pub mod problem;
pub mod relay;
pub mod section;

mod mail;

use std::fs;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use crate::directory::dn::Dn;
use crate::limits;
use crate::log::{self, LogConfig, LogFormat};
use crate::message::name;
use crate::replication::engine::Timing;

pub use partner::PartnerConfig;
pub use problem::{Problem, Problems};
pub use relay::RelayConfig;

use section::{Document, Section};

/// One site's configuration as meant.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that it was read from.
    pub file: PathBuf,
    pub site: SiteConfig,
    pub relay: RelayConfig,
    pub replication: ReplicationConfig,
    pub log: LogConfig,
    /// Where metrics are served over HTTP, on loopback; nowhere unless configured.
    pub metrics: Option<SocketAddr>,
    /// The connected sites, by name.
    pub partners: Vec<PartnerConfig>,
}

/// Who we are and where our things are. Paths are absolute, or relative to the working directory as
/// the configuration file's own path was.
#[derive(Clone, Debug)]
pub struct SiteConfig {
    pub name: String,
    /// What it was called before: what the store holds as that site's is its own.
    pub former_names: Vec<String>,
    pub organization: String,
    /// Where the other sites send.
    pub mailbox: String,
    /// Where they sent before: taken as well, for mail that is under way.
    pub former_mailboxes: Vec<String>,
    /// The naming contexts that this site masters.
    pub contexts: Vec<Dn>,
    pub key: PathBuf,
    pub sites: PathBuf,
    pub data: PathBuf,
}

impl Config {
    /// The connected site of that name.
    pub fn partner(&self, name: &str) -> Option<&PartnerConfig> {
        self.partners.iter().find(|partner| partner.card.name() == name)
    }
}

impl SiteConfig {
    /// Our own cards, as issued.
    pub fn cards(&self) -> PathBuf {
        self.data.join("cards")
    }

    /// Cards that were offered and wait for the operator, one file each.
    pub fn offered(&self) -> PathBuf {
        self.data.join("offered")
    }

    /// Every mailbox that replication mail may come to, the present one first.
    pub fn mailboxes(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.mailbox).chain(&self.former_mailboxes)
    }

    /// Where commands reach the running daemon.
    pub fn control_socket(&self) -> PathBuf {
        self.data.join("control.sock")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationConfig {
    pub timing: Timing,
    pub part_bytes_max: u64,
    /// How long what is signed by a site's former key still counts after it renewed its keys.
    pub former_keys: Duration,
}

/// Reads the configuration file and the connected sites' files.
pub fn load(file: &Path) -> Result<Config, Problems> {
    let text = fs::read_to_string(file).map_err(|error| unreadable(file, &error))?;
    let mut config = parse(file, &text);
    let sites = match &config {
        Ok(config) => config.site.sites.clone(),
        Err(_) => file.with_file_name("sites.d"),
    };
    let own = config.as_ref().ok().map(|config| config.site.clone());
    match (partner::load_all(&sites, own.as_ref()), &mut config) {
        (Ok(partners), Ok(config)) => config.partners = partners,
        (Err(problems), Ok(_)) => return Err(problems),
        (Err(more), Err(problems)) => problems.0.extend(more.0),
        (Ok(_), Err(_)) => {}
    }
    config
}

/// Reads the text of the configuration file; the connected sites are not looked at.
pub fn parse(file: &Path, text: &str) -> Result<Config, Problems> {
    let document = Document::parse(file, text);
    let root = document.root();
    let base = file.parent().unwrap_or(Path::new(""));
    let site = match root.section("site") {
        Some(section) => read_site(section, base),
        None => {
            root.refuse("site", "is missing", "every configuration has a [site]");
            None
        }
    };
    let relay = mail::read(&root, site.as_ref());
    let replication =
        root.section("replication").map_or_else(|| Some(ReplicationConfig::default()), read_replication);
    let log = root.section("log").map_or_else(|| Some(LogConfig::default()), read_log);
    let metrics = root.section("metrics").and_then(read_metrics);
    root.finish();
    let config = (|| {
        let partners = Vec::new();
        Some(Config {
            file: file.to_owned(),
            site: site?,
            relay: relay?,
            replication: replication?,
            log: log?,
            metrics,
            partners,
        })
    })();
    document.finish(config)
}

/// The text of a configuration file with another mailbox; the present one joins `former_mailboxes`. All else stays.
/// None: it has none.
pub fn with_mailbox(text: &str, mailbox: &str) -> Option<String> {
    let root = DeTable::parse(text).ok()?;
    let (_, site) = root.get_ref().iter().find(|(name, _)| name.get_ref() == "site")?;
    let site = site.get_ref().as_table()?;
    let (span, present) = value(site, "mailbox")?;
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let mut former = vec![quoted(present.as_str()?)];
    let mut after = text.to_owned();
    let listed = value(site, "former_mailboxes");
    if let Some((_, list)) = &listed {
        let items = list.as_array().into_iter().flat_map(|list| list.iter());
        let texts = items.filter_map(|item| item.get_ref().as_str()).chain(list.as_str());
        former.extend(texts.filter(|text| *text != mailbox).map(quoted));
    }
    let former = format!("[{}]", former.join(", "));
    // The later place first, so that the earlier one stays where it is.
    let mut edits = vec![(span.clone(), quoted(mailbox))];
    match listed {
        Some((place, _)) => edits.push((place, former)),
        None => {
            let line_end = span.end + text[span.end..].find('\n').unwrap_or(text.len() - span.end);
            edits.push((line_end..line_end, format!("\nformer_mailboxes = {former}")));
        }
    }
    edits.sort_by_key(|(place, _)| std::cmp::Reverse(place.start));
    edits.into_iter().for_each(|(place, new)| after.replace_range(place, &new));
    Some(after)
}

fn value<'t>(table: &DeTable<'t>, key: &str) -> Option<(Range<usize>, DeValue<'t>)> {
    let found = table.iter().find(|(name, _)| name.get_ref() == key);
    found.map(|(_, value)| (value.span(), value.get_ref().clone()))
}

fn unreadable(file: &Path, error: &std::io::Error) -> Problems {
    let hint = match error.kind() {
        std::io::ErrorKind::NotFound => "`bridgehead init` writes one; --config names another",
        std::io::ErrorKind::PermissionDenied => "run as the user that owns it",
        _ => "",
    };
    Problems::whole_file(file, error.to_string(), hint)
}

fn read_site(section: Section, base: &Path) -> Option<SiteConfig> {
    let text = |text: &str| if text.is_empty() { Err("is empty") } else { Ok(text.to_owned()) };
    let path = |key, default: &str| base.join(section.string(key).unwrap_or(default));
    let name =
        section.required("name", "this site's name", |name| name::check_site(name).map(|()| name.to_owned()));
    let former_names = section.list("former_names", |name| name::check_site(name).map(|()| name.to_owned()));
    let organization = section.required("organization", "the organization's name", text);
    let mailbox =
        section.required("mailbox", "where the other sites send their replication mail", |mailbox| {
            name::split_mailbox(mailbox).map(|_| mailbox.to_owned())
        });
    let former_mailboxes =
        section.list("former_mailboxes", |mailbox| name::split_mailbox(mailbox).map(|_| mailbox.to_owned()));
    let contexts = section.list("contexts", Dn::parse);
    if let Some(contexts) = &contexts {
        nested(contexts)
            .inspect(|message| section.refuse("contexts", message, "a naming context has one master"));
    }
    let (key, sites, data) = (path("key", "site.key"), path("sites", "sites.d"), path("data", "data"));
    let contexts = contexts.unwrap_or_default();
    section.finish();
    Some(SiteConfig {
        name: name?,
        former_names: former_names.unwrap_or_default(),
        organization: organization?,
        mailbox: mailbox?,
        former_mailboxes: former_mailboxes.unwrap_or_default(),
        contexts,
        key,
        sites,
        data,
    })
}

fn nested(contexts: &[Dn]) -> Option<String> {
    contexts.iter().enumerate().find_map(|(index, context)| {
        let other =
            contexts[index + 1..].iter().find(|other| other.is_under(context) || context.is_under(other))?;
        Some(format!("{context} and {other} overlap"))
    })
}

impl Default for ReplicationConfig {
    fn default() -> Self {
        ReplicationConfig {
            timing: Timing::default(),
            part_bytes_max: limits::PART_BYTES_DEFAULT,
            former_keys: limits::FORMER_KEYS,
        }
    }
}

fn read_replication(section: Section) -> Option<ReplicationConfig> {
    let day = Duration::from_secs(86_400);
    let mut config = ReplicationConfig::default();
    let timing = &mut config.timing;
    // What is done again and again after no time is a storm of mail.
    let (none, second) = (Duration::ZERO, Duration::from_secs(1));
    let durations: [(&'static str, &mut Duration, Range<Duration>); 8] = [
        ("batching", &mut timing.batching, none..day),
        ("acknowledgement", &mut timing.acknowledgement, none..day),
        ("gap", &mut timing.gap, second..day),
        ("heartbeat", &mut timing.heartbeat, second..90 * day),
        ("retry_first", &mut timing.retry_first, second..90 * day),
        ("retry_min", &mut timing.retry_min, second..90 * day),
        ("retry_max", &mut timing.retry_max, second..90 * day),
        ("repeat", &mut timing.repeat, second..366 * day),
    ];
    for (key, field, bounds) in durations {
        if let Some(value) = section.duration(key, bounds) {
            *field = value;
        }
    }
    if timing.retry_max < timing.retry_min {
        section.refuse("retry_max", "is less than `retry_min`", "");
    }
    let commits = section.number("log_commits", 100..1 << 40);
    timing.log_commits_max = commits.unwrap_or(timing.log_commits_max);
    let bounds = limits::QUARANTINE_BYTES_MIN..1 << 40;
    let bytes = section.octets("quarantine_bytes", bounds);
    timing.quarantine_bytes_max = bytes.unwrap_or(timing.quarantine_bytes_max);
    let bounds = limits::PART_BYTES_MIN as u64..limits::REPLICATION_MESSAGE_BYTES_MAX as u64 / 2;
    if let Some(bytes) = section.octets("part_bytes", bounds) {
        config.part_bytes_max = bytes;
    }
    config.former_keys =
        section.duration("former_keys", Duration::ZERO..400 * day).unwrap_or(config.former_keys);
    section.finish();
    Some(config)
}

fn read_log(section: Section) -> Option<LogConfig> {
    let mut config = LogConfig::default();
    let format = section.parsed("format", |format| match format {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        "journald" => Ok(LogFormat::Journald),
        _ => Err("is not text, json or journald"),
    });
    let level = section.parsed("level", |level| log::filter(level).map(|_| level.to_owned()));
    config.format = format.unwrap_or(config.format);
    config.level = level.unwrap_or(config.level);
    section.finish();
    Some(config)
}

fn read_metrics(section: Section) -> Option<SocketAddr> {
    let address =
        section.parsed("listen", |text| match text.replacen("localhost:", "127.0.0.1:", 1).parse() {
            // Nobody is asked for a password there.
            Ok(address) if !SocketAddr::ip(&address).is_loopback() => Err("is not a loopback address"),
            Ok(address) => Ok(address),
            Err(_) => Err("is not ADDRESS:PORT"),
        });
    section.finish();
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../config/bridgehead.toml");

    #[test]
    fn the_shipped_configuration_is_sound() {
        let config = parse(Path::new("/etc/bridgehead/bridgehead.toml"), SHIPPED).unwrap();
        assert_eq!(config.site.name, "alpha");
        assert_eq!(config.site.key, Path::new("/etc/bridgehead/site.key"));
        assert_eq!(config.relay.listeners.len(), 1);
    }

    #[test]
    fn the_defaults_that_the_shipped_configuration_shows_are_the_defaults() {
        let uncommented: String = SHIPPED
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let shown = parse(Path::new("f"), &uncommented).unwrap();
        let default = parse(Path::new("f"), SHIPPED).unwrap();
        assert_eq!(format!("{shown:?}"), format!("{default:?}"));
    }

    #[test]
    fn problems_of_all_sections_are_reported_at_once() {
        let text =
            "[site]\nname = \"a b\"\n[listen]\nsmtp = [\"nowhere\"]\n[replication]\nbatching = 3\n[lgo]\n";
        let problems = parse(Path::new("f.toml"), text).unwrap_err();
        let lines: Vec<usize> = problems.0.iter().map(|problem| problem.line).collect();
        for line in [2, 4, 6, 7] {
            assert!(lines.contains(&line), "no problem on line {line}: {problems}");
        }
        assert!(problems.to_string().contains("did you mean `log`?"), "{problems}");
    }

    #[test]
    fn passed_authentication_needs_a_default_route_without_credentials() {
        let with = |routes: &str, auth: &str| {
            let listener = "[[listener]]\naddress = \"127.0.0.1:2525\"\n";
            parse(Path::new("f"), &format!("{SHIPPED}\n{routes}\n{listener}auth = {{ {auth} }}\n"))
                .map(|config| config.relay.listeners.last().and_then(|listener| listener.auth.clone()))
                .map_err(|problems| problems.to_string())
        };
        let route = |more: &str| format!("[[route]]\nto = \"*\"\nnext_hop = \"mx.example\"\n{more}");
        let auth = with(&route(""), "pass = true").unwrap().unwrap();
        assert_eq!((auth.source, auth.required, auth.without_tls), (relay::AuthSource::NextHop, true, false));
        let wrong = with(&route("user = \"u\"\npassword = \"p\""), "pass = true").unwrap_err();
        assert!(wrong.contains("`user` or `mx`"), "{wrong}");
        let both = with(&route(""), "pass = true, password_file = \"x\"").unwrap_err();
        assert!(both.contains("has no use with `pass`"), "{both}");
        assert!(with(&route(""), "required = true").unwrap_err().contains("password_file"));
    }

    #[test]
    fn a_next_hop_that_is_a_listener_is_refused() {
        let refused = |listen: &str, hop: &str| {
            let more = format!(
                "[[listener]]\naddress = \"{listen}\"\n[[route]]\nto = \"*\"\nnext_hop = \"{hop}\"\n"
            );
            match parse(Path::new("f"), &format!("{SHIPPED}\n{more}")) {
                Ok(_) => false,
                Err(problems) => problems.to_string().contains("is where this program itself listens"),
            }
        };
        assert!(refused("192.0.2.1:2525", "192.0.2.1:2525") && refused("0.0.0.0:2525", "127.0.0.1:2525"));
        assert!(refused("127.0.0.1:2525", "localhost:2525") && refused("unix:/run/x", "unix:/run/x"));
        assert!(!refused("192.0.2.1:2525", "192.0.2.1:2526") && !refused("192.0.2.1:2525", "192.0.2.2:2525"));
        assert!(!refused("unix:/run/x", "unix:/run/y"));
        // Another machine, for all that is known here.
        assert!(!refused("0.0.0.0:2525", "192.0.2.1:2525") && !refused("0.0.0.0:2525", "mx.example:2525"));
    }

    #[test]
    fn what_would_be_a_storm_of_mail_or_a_log_without_lines_is_refused() {
        let refused = |table: &str, line: &str| {
            let text = SHIPPED.replace(&format!("\n[{table}]\n"), &format!("\n[{table}]\n{line}\n"));
            assert_ne!(text, SHIPPED, "{table}");
            parse(Path::new("f"), &text).map(|_| ()).map_err(|problems| problems.to_string())
        };
        for key in ["gap", "heartbeat", "retry_first", "retry_min", "retry_max", "repeat"] {
            let problem = refused("replication", &format!("{key} = \"0s\"")).unwrap_err();
            assert!(problem.contains(key) && problem.contains("from 1s"), "{problem}");
        }
        let problem = refused("replication", "retry_min = \"3d\"").unwrap_err();
        assert!(problem.contains("`replication.retry_max`"), "{problem}");
        for level in ["inof", "loud", "WARNING", "bridgehead"] {
            assert!(refused("log", &format!("level = \"{level}\"")).unwrap_err().contains(level), "{level}");
        }
        for level in ["info", "WARN", "off", "bridgehead=debug", "info,bridgehead::relay=warn"] {
            assert_eq!(refused("log", &format!("level = \"{level}\"")), Ok(()), "{level}");
        }
    }

    #[test]
    fn overlapping_contexts_are_refused() {
        let text = SHIPPED.replace("[\"ou=alpha,o=Example\"]", "[\"o=Example\", \"ou=alpha,o=Example\"]");
        assert!(parse(Path::new("f"), &text).unwrap_err().to_string().contains("overlap"));
    }
}
