//! The daemon: where the rooms meet. Starts them, keeps them running, stops them in order.
//!
//! PROMISES
//!   On SIGTERM no new session begins, sessions under way may finish, what was taken is on disk. On SIGHUP
//!   the configuration is read again and takes effect as a whole, or not at all with every reason in the log.

pub mod counters;
pub mod measured;
pub mod replicator;

mod endpoint;
mod events;
mod intercept;
mod recipients;
mod submission;
pub mod trust;

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::cli::failure::{CONFIG, Failure, IO, OrFail, TRY_AGAIN, UNAVAILABLE};
use crate::config::{self, Config, PartnerConfig, Problems};
use crate::control::{import, server};
use crate::directory::StoreError;
use crate::directory::sqlite::{SqliteReader, SqliteStore};
use crate::listen::intercept::InterceptedEnvelope;
use crate::listen::{self, Listener, Service};
use crate::message::keyfile;
use crate::message::keys::SiteKey;
use crate::message::own::OwnCardError;
use crate::relay::Relay;
use crate::replication::engine::hold::holds;
use crate::replication::engine::{
    EngineConfig, FormerKey, KnownSite, Partner, PinnedCard, Succession, quarantine,
};
use crate::replication::status;
use crate::smtp::{Path, Reply};

use counters::ReplicationCounters;
use intercept::Interceptor;
pub use intercept::open as open_message;
use measured::{Measured, Picture};
use recipients::KnownRecipients;
use replicator::Replicator;

/// How long mail on its way to the next hop may take after everything else has stopped.
const SUBMISSIONS_END: Duration = Duration::from_secs(10);

/// What the daemon's rooms share of the site.
pub struct Site {
    config: ArcSwap<Config>,
    key: ArcSwap<SiteKey>,
    replicator: Replicator,
    counters: Arc<ReplicationCounters>,
}

impl Site {
    fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }
}

/// The running daemon, as the control socket sees it.
pub struct Daemon {
    site: Arc<Site>,
    relay: Arc<Relay>,
    service: Arc<Service>,
    started: Timestamp,
    stopping: watch::Receiver<bool>,
    runtime: Handle,
    /// Held from reading the files to putting them in force: an operator, a signal and a new card may ask at once, and
    /// what was read last must win.
    reloading: Mutex<()>,
}

impl Daemon {
    pub fn config(&self) -> Arc<Config> {
        self.site.config()
    }

    pub fn key(&self) -> Arc<SiteKey> {
        self.site.key.load_full()
    }

    pub fn replicator(&self) -> &Replicator {
        &self.site.replicator
    }

    /// Whether new sessions are taken.
    pub fn is_ready(&self) -> bool {
        !*self.stopping.borrow()
    }

    /// What happened since the start.
    pub fn measured(&self) -> Measured {
        Measured {
            version: env!("CARGO_PKG_VERSION"),
            started: self.started,
            ready: self.is_ready(),
            sessions_open: self.service.sessions_open() as u64,
            relay: self.service.counters(),
            next_hops: self.relay.snapshot(),
            replication: self.site.counters.snapshot(),
        }
    }

    /// That and what the store says, for Prometheus. Waits for the disk.
    pub fn metrics(&self) -> Result<String, String> {
        self.picture().map_err(|error| error.to_string())?.text().map_err(|error| error.to_string())
    }

    fn picture(&self) -> Result<Picture, StoreError> {
        let config = self.config();
        let engine = engine_config(&config, &self.site.key.load());
        let mut reader = SqliteReader::open(&config.site.data)?;
        let snapshot = reader.snapshot()?;
        Ok(Picture {
            daemon: self.measured(),
            status: status::status(&snapshot, &engine, Timestamp::now())?,
            holds: holds(&snapshot)?.len() as u64,
            quarantined: quarantine::count(&snapshot)?,
        })
    }

    /// Reads the configuration again and puts it in force, unless anything is wrong with it.
    pub fn reload(&self) -> Result<(), Problems> {
        self.put_in_force().inspect_err(|problems| {
            for problem in &problems.0 {
                error!(event = "reload-refused", %problem, "the configuration in force stays");
            }
        })
    }

    fn put_in_force(&self) -> Result<(), Problems> {
        let _alone = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.config();
        let mut after = config::load(&before.file)?;
        let fixed = [
            ("`site.name`", before.site.name == after.site.name),
            ("`site.data`", before.site.data == after.site.data),
            ("`metrics.listen`", before.metrics == after.metrics),
            ("`[log]`", before.log == after.log),
        ];
        let changed: Vec<&str> = fixed.iter().filter(|(_, stays)| !stays).map(|(name, _)| *name).collect();
        if !changed.is_empty() {
            let message = format!("{} changed, which needs a restart", changed.join(" and "));
            return Err(Problems::whole_file(&before.file, message, "stop the daemon, then start it"));
        }
        let failed = |error: String| Problems::whole_file(&before.file, error, "");
        let key = keyfile::read(&after.site.key).map_err(|error| failed(error.to_string()))?;
        let engine = full_engine_config(&after, &key).map_err(|error| failed(error.to_string()))?;
        after.relay.trace_id = before.relay.trace_id.clone();
        self.relay.reconfigure(Arc::new(after.relay.clone()));
        // The keys and cards first: what the engine then sends is sealed by them.
        self.site.key.store(Arc::new(key));
        self.site.config.store(Arc::new(after));
        self.site.replicator.configure(engine);
        info!(event = "reloaded", "the configuration is in force");
        Ok(())
    }

    /// Takes one message from a thread that may wait.
    pub fn deliver_blocking(&self, mailbox: Option<&str>, input: &mut dyn Read) -> io::Result<Reply> {
        let config = self.config();
        let mailbox = mailbox.unwrap_or(&config.site.mailbox);
        let mailbox = Path::parse(mailbox).map_err(|error| io::Error::other(error.to_string()))?;
        let bound = config.relay.limits.replication_message_bytes_max;
        let mut message = Vec::new();
        input.take(bound as u64 + 1).read_to_end(&mut message)?;
        if message.len() > bound {
            return Ok(Reply::new(552, crate::smtp::Enhanced(5, 3, 4), "the message is too large"));
        }
        let envelope = InterceptedEnvelope { reverse_path: Path::null(), mailbox, client: None };
        Ok(self.runtime.block_on(intercept::deliver(self.site.clone(), envelope, message)))
    }
}

/// What the engine is told of the configuration.
pub fn engine_config(config: &Config, key: &SiteKey) -> EngineConfig {
    let linked = config.partners.iter().filter(|partner| partner.exchange);
    let partners = linked.map(|partner| {
        let limit = config.replication.part_bytes_max.min(partner.card.fields.part_bytes_max);
        Partner { part_bytes_max: partner.link.part_bytes_max.min(limit), ..partner.link.clone() }
    });
    let known = config.partners.iter().map(|partner| KnownSite {
        site: partner.card.name().to_owned(),
        key: partner.card.public.signing,
        contexts: partner.card.fields.contexts.clone(),
        former: former_keys(partner),
        card: Some(PinnedCard {
            serial: partner.card.fields.serial,
            text: partner.card_text.clone(),
            former: partner.former.iter().map(|former| former.text.clone()).collect(),
        }),
    });
    EngineConfig {
        site: config.site.name.clone(),
        key: key.signing().clone(),
        card: String::new(),
        succession: Succession::default(),
        known: known.collect(),
        partners: partners.collect(),
        timing: config.replication.timing.clone(),
    }
}

/// The same, with our own cards and our word for others, as the engine tells them.
fn full_engine_config(config: &Config, key: &SiteKey) -> Result<EngineConfig, OwnCardError> {
    let own = trust::own_cards(config, key)?;
    let mut engine = engine_config(config, key);
    trust::told_by_us(&mut engine, config, key, &own);
    Ok(engine)
}

fn former_keys(partner: &PartnerConfig) -> Vec<FormerKey> {
    let former = partner.former.iter();
    former.map(|one| FormerKey { key: one.card.public.signing, until: one.until.as_millisecond() }).collect()
}

/// Runs until a signal asks it to stop.
pub fn run(mut config: Config, key: SiteKey) -> Result<(), Failure> {
    let data = config.site.data.display().to_string();
    let store = open_store(&config)?;
    config.relay.trace_id = trace_id(&key);
    let control = server::bind(&config.site.control_socket()).or_fail(IO, || data)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.or_fail(IO, || "the runtime".to_owned())?;
    let (mail, queue) = mpsc::unbounded_channel();
    let (tell, told) = mpsc::unbounded_channel();
    let engine = full_engine_config(&config, &key).or_fail(IO, || "this site's card".to_owned())?;
    let counters: Arc<ReplicationCounters> = Arc::default();
    let started = Replicator::start(store, engine, mail, tell, counters.clone());
    let (replicator, thread) = started.or_fail(IO, || "the replicator".to_owned())?;
    let socket = config.site.control_socket();
    let site = Arc::new(Site {
        config: ArcSwap::from_pointee(config),
        key: ArcSwap::from_pointee(key),
        replicator,
        counters,
    });
    let relay = {
        let _entered = runtime.enter();
        Relay::new(Arc::new(site.config().relay.clone()))
    };
    let submission = runtime.spawn(submission::run(site.clone(), relay.clone(), queue));
    let served = runtime.block_on(serve(&site, relay, control, told));
    finish(&site, thread);
    // With the replicator the queue has ended; what is on its way to the next hop may arrive.
    if runtime.block_on(async { timeout(SUBMISSIONS_END, submission).await }).is_err() {
        warn!(event = "submission-cut-off", "mail on its way was cut off; it is sent again after the start");
    }
    // A socket that is gone already is as good as removed.
    let _ = std::fs::remove_file(socket);
    info!(event = "stopped", "stopped");
    served
}

fn open_store(config: &Config) -> Result<SqliteStore, Failure> {
    let failed = |error| Failure::new(TRY_AGAIN, format!("{}: {error}", config.site.data.display()));
    let mut store = SqliteStore::open(&config.site.data).map_err(failed)?;
    let mut tx = store.begin().map_err(failed)?;
    import::own_contexts(&mut tx, &config.site).or_fail(CONFIG, || "the naming contexts".to_owned())?;
    tx.commit().map_err(failed)?;
    if store.is_restored() {
        warn!(
            event = "store-restored",
            "the store is a copy; what it lacks is taken back from the connected sites"
        );
        store.settle().map_err(failed)?;
    }
    Ok(store)
}

/// Tells our trace headers from those of others; the same after a restart.
fn trace_id(key: &SiteKey) -> String {
    key.public().fingerprint().chars().filter(char::is_ascii_hexdigit).take(16).collect()
}

async fn serve(
    site: &Arc<Site>,
    relay: Arc<Relay>,
    control: std::os::unix::net::UnixListener,
    told: mpsc::UnboundedReceiver<trust::Told>,
) -> Result<(), Failure> {
    // Before anything listens: whoever can reach the daemon may also stop it.
    let signals = Signals::install()?;
    let config = site.config();
    let recipients = Arc::new(KnownRecipients::new(config.site.data.clone()));
    let service = Service::new(relay.clone(), Arc::new(Interceptor::new(site.clone())), Some(recipients));
    let (stop, stopping) = watch::channel(false);
    // All that is listened on is bound before anybody is served: a start that fails has taken no mail.
    let mut bound = Vec::new();
    for listener in &config.relay.listeners {
        let socket = Listener::bind(&listener.address).await;
        bound.push(socket.or_fail(UNAVAILABLE, || format!("listening on {}", listener.address))?);
    }
    let metrics = match config.metrics {
        Some(address) => {
            let socket = TcpListener::bind(address).await;
            Some(socket.or_fail(UNAVAILABLE, || format!("listening on {address}, for metrics"))?)
        }
        None => None,
    };
    let daemon = Arc::new(Daemon {
        site: site.clone(),
        relay,
        service: service.clone(),
        started: Timestamp::now(),
        stopping: stopping.clone(),
        runtime: Handle::current(),
        reloading: Mutex::new(()),
    });
    if let Some(metrics) = metrics {
        tokio::spawn(endpoint::serve(metrics, daemon.clone()));
    }
    tokio::spawn(trust::run(daemon.clone(), told));
    server::serve(control, daemon.clone()).or_fail(IO, || "the control socket".to_owned())?;
    let mut listeners = JoinSet::new();
    for (socket, listener) in bound.into_iter().zip(&config.relay.listeners) {
        listeners.spawn(listen::serve(socket, listener.clone(), service.clone(), stopping.clone()));
    }
    info!(event = "started", site = config.site.name, version = env!("CARGO_PKG_VERSION"), "ready");
    tell_systemd(&[NotifyState::Ready]);
    until_stopped(signals, &daemon).await;
    tell_systemd(&[NotifyState::Stopping]);
    info!(event = "stopping", "no new sessions; those under way may finish");
    stop.send_replace(true);
    listeners.join_all().await;
    Ok(())
}

/// The signals that the daemon heeds instead of ending at once.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn install() -> Result<Signals, Failure> {
        let on = |kind| signal(kind).or_fail(IO, || "signals".to_owned());
        Ok(Signals {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
        })
    }
}

/// Returns on SIGTERM and SIGINT; SIGHUP reads the configuration again.
async fn until_stopped(mut signals: Signals, daemon: &Arc<Daemon>) {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return,
            _ = signals.interrupt.recv() => return,
            _ = signals.hangup.recv() => {
                let daemon = daemon.clone();
                tell_systemd(&[NotifyState::Reloading]);
                // What keeps it from being in force is in the log.
                let _ = tokio::task::spawn_blocking(move || daemon.reload()).await;
                tell_systemd(&[NotifyState::Ready]);
            }
        }
    }
}

/// With `Type=notify-reload` a reload is dated; other types take no notice of the date.
fn tell_systemd(state: &[NotifyState]) {
    let dated = NotifyState::monotonic_usec_now().map(|now| [state, &[now]].concat());
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(dated.as_deref().unwrap_or(state));
}

fn finish(site: &Site, replicator: thread::JoinHandle<()>) {
    site.replicator.stop();
    if replicator.join().is_err() {
        error!(event = "replicator-panicked", "the replicator did not stop cleanly; the store is whole");
    }
}
