//! The replicator: one thread that owns the store and the engine, one transaction at a time.
//!
//! PROMISES
//!   What was asked is answered after the transaction that holds it is on disk, or with the error that
//!   kept it from there. Requests that wait together share one transaction and one fsync.
//!   Mail leaves after the commit that it speaks of.
//!
//! FAILURE
//!   When the store fails, everything in that transaction is answered with the failure (a sending
//!   server sees 451 and keeps its message) and the engine is made anew from what is on disk.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc as async_mpsc, oneshot};
use tracing::error;

use super::counters::ReplicationCounters;
use super::events;
use super::trust::Told;
use crate::directory::sqlite::SqliteStore;
use crate::directory::{StoreError, Write};
use crate::replication::engine::bundle::Bundled;
use crate::replication::engine::{Engine, EngineConfig, Event, Header, Input, Outcome, Output};
use crate::replication::wire::KeyId;

/// Requests that share one transaction, at the most.
const GROUP_MAX: usize = 256;

/// After the store failed, how long until it is tried again.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// A payload on its way to a connected site, not sealed yet.
pub struct Mail {
    pub to: String,
    /// The message's sequence number.
    pub mail: u64,
    pub payload: Vec<u8>,
    /// The key of ours that the site knows us by.
    pub signer: KeyId,
}

/// What a job leaves behind: its answer, and the naming contexts whose position it raised.
pub struct Changed<T> {
    pub answer: T,
    pub contexts: Vec<u32>,
}

/// A bundle that was made, and what is to be told of it.
pub type Made = (Vec<Bundled>, Vec<Event>);

/// Why nothing came of what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// This machine's fault.
    #[error("{0}; nothing was changed")]
    Store(StoreError),
    #[error("the daemon is stopping; nothing was changed")]
    Stopping,
}

/// Whoever waits for an answer, and what that will be once it is on disk.
struct Waits<T> {
    answer: oneshot::Sender<Result<T, Failure>>,
    done: Option<T>,
}

impl<T> Waits<T> {
    fn new() -> (Waits<T>, oneshot::Receiver<Result<T, Failure>>) {
        let (answer, answered) = oneshot::channel();
        (Waits { answer, done: None }, answered)
    }

    fn answer(self, ended: &Result<(), StoreError>) {
        let answer = match ended {
            Ok(()) => self.done.ok_or(Failure::Stopping),
            Err(failure) => Err(Failure::Store(failure.clone())),
        };
        // Whoever asked may be gone. What was done stays; a sending server repeats, which is harmless.
        let _ = self.answer.send(answer);
    }
}

/// A change of the directory that somebody waits for.
trait Job: Send {
    /// Whether to keep what it did, and the naming contexts whose position it raised.
    fn run(&mut self, tx: &mut dyn Write) -> (bool, Vec<u32>);
    fn answer(self: Box<Self>, ended: &Result<(), StoreError>);
}

struct Change<T, E, F> {
    job: Option<F>,
    waits: Waits<Result<T, E>>,
}

impl<T: Send, E: Send, F> Job for Change<T, E, F>
where
    F: FnOnce(&mut dyn Write) -> Result<Changed<T>, E> + Send,
{
    fn run(&mut self, tx: &mut dyn Write) -> (bool, Vec<u32>) {
        let Some(job) = self.job.take() else { return (false, Vec::new()) };
        let (keep, contexts, done) = match job(tx) {
            Ok(changed) => (true, changed.contexts, Ok(changed.answer)),
            Err(error) => (false, Vec::new(), Err(error)),
        };
        self.waits.done = Some(done);
        (keep, contexts)
    }

    fn answer(self: Box<Self>, ended: &Result<(), StoreError>) {
        self.waits.answer(ended);
    }
}

/// Who waits for what becomes of an input.
enum Answer {
    Nobody,
    Outcome(Waits<Outcome>),
    Events(Waits<Vec<Event>>),
}

enum Request {
    /// The input is taken out when it is handled.
    Input(Option<Input>, Answer),
    Bundle(String, Waits<Made>),
    Job(Box<dyn Job>),
    /// The configuration is taken out when it comes into force.
    Configure(Option<Box<EngineConfig>>),
    Stop,
}

impl Request {
    fn answer(self, ended: &Result<(), StoreError>) {
        match self {
            Request::Input(_, Answer::Outcome(waits)) => waits.answer(ended),
            Request::Input(_, Answer::Events(waits)) => waits.answer(ended),
            Request::Bundle(_, waits) => waits.answer(ended),
            Request::Job(job) => job.answer(ended),
            Request::Input(_, Answer::Nobody) | Request::Configure(_) | Request::Stop => {}
        }
    }
}

/// The way to the replicator; clones share it.
#[derive(Clone)]
pub struct Replicator {
    requests: mpsc::Sender<Request>,
}

impl Replicator {
    /// Starts the thread. Mail to be sent goes to `mail`, cards that sites tell to `told`. The handle ends once [`Replicator::stop`] was called.
    pub fn start(
        store: SqliteStore,
        config: EngineConfig,
        mail: async_mpsc::UnboundedSender<Mail>,
        told: async_mpsc::UnboundedSender<Told>,
        counters: Arc<ReplicationCounters>,
    ) -> std::io::Result<(Replicator, thread::JoinHandle<()>)> {
        let (requests, queue) = mpsc::channel();
        let worker = Worker { store, engine: None, config, queue, mail, told, counters, outputs: Vec::new() };
        let thread =
            thread::Builder::new().name("replicator".into()).stack_size(8 << 20).spawn(|| worker.run())?;
        Ok((Replicator { requests }, thread))
    }

    /// Hands over an opened and verified message. The outcome comes when it is durable.
    pub async fn received(&self, from: String, header: Header, payload: Vec<u8>) -> Result<Outcome, Failure> {
        self.hear(Input::Received { from, header, payload }).await
    }

    /// Runs `job` within a transaction and waits until that is committed. An error of the job undoes what it did.
    pub fn change<T, E>(
        &self,
        job: impl FnOnce(&mut dyn Write) -> Result<Changed<T>, E> + Send + 'static,
    ) -> Result<Result<T, E>, Failure>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let (waits, answered) = Waits::new();
        self.ask(Request::Job(Box::new(Change { job: Some(job), waits })))?;
        answered.blocking_recv().unwrap_or(Err(Failure::Stopping))
    }

    /// Tells the engine something that nobody waits for.
    pub fn input(&self, input: Input) {
        // When the replicator has stopped there is nobody left to tell.
        let _ = self.requests.send(Request::Input(Some(input), Answer::Nobody));
    }

    /// Tells the engine what came by mail, and waits until that is on disk.
    pub async fn hear(&self, input: Input) -> Result<Outcome, Failure> {
        let (waits, outcome) = Waits::new();
        self.ask(Request::Input(Some(input), Answer::Outcome(waits)))?;
        outcome.await.unwrap_or(Err(Failure::Stopping))
    }

    /// Tells the engine an operator's word and waits until what followed from it is on disk.
    pub fn tell(&self, input: Input) -> Result<Vec<Event>, Failure> {
        let (waits, answered) = Waits::new();
        self.ask(Request::Input(Some(input), Answer::Events(waits)))?;
        answered.blocking_recv().unwrap_or(Err(Failure::Stopping))
    }

    /// Makes the messages of a bundle and waits until it is on disk that they were made.
    pub fn bundle(&self, site: &str) -> Result<Made, Failure> {
        let (waits, answered) = Waits::new();
        self.ask(Request::Bundle(site.to_owned(), waits))?;
        answered.blocking_recv().unwrap_or(Err(Failure::Stopping))
    }

    /// Puts a new configuration in force with the next transaction.
    pub fn configure(&self, config: EngineConfig) {
        let _ = self.requests.send(Request::Configure(Some(Box::new(config))));
    }

    pub fn stop(&self) {
        let _ = self.requests.send(Request::Stop);
    }

    fn ask(&self, request: Request) -> Result<(), Failure> {
        self.requests.send(request).map_err(|_| Failure::Stopping)
    }
}

struct Worker {
    store: SqliteStore,
    /// None until it was started on what is on disk: at first, with a new configuration, and after the store failed.
    engine: Option<Engine>,
    config: EngineConfig,
    queue: mpsc::Receiver<Request>,
    mail: async_mpsc::UnboundedSender<Mail>,
    counters: Arc<ReplicationCounters>,
    told: async_mpsc::UnboundedSender<Told>,
    /// What the engine decided in this transaction.
    outputs: Vec<Output>,
}

impl Worker {
    fn run(mut self) {
        self.transact(Vec::new());
        loop {
            let group = self.next_group();
            let stop = group.iter().any(|request| matches!(request, Request::Stop));
            self.transact(group);
            if stop {
                return;
            }
        }
    }

    /// Waits for requests, no longer than until the engine wants to be called.
    fn next_group(&self) -> Vec<Request> {
        let deadline = match &self.engine {
            Some(engine) => engine.deadline(),
            None => Timestamp::now().checked_add(STORE_RETRY).ok(),
        };
        let first = match deadline {
            None => self.queue.recv().unwrap_or(Request::Stop),
            Some(deadline) => {
                let wait = Duration::try_from(deadline.duration_since(Timestamp::now())).unwrap_or_default();
                match self.queue.recv_timeout(wait) {
                    Ok(request) => request,
                    Err(mpsc::RecvTimeoutError::Timeout) => Request::Input(Some(Input::Tick), Answer::Nobody),
                    Err(mpsc::RecvTimeoutError::Disconnected) => Request::Stop,
                }
            }
        };
        std::iter::once(first).chain(self.queue.try_iter().take(GROUP_MAX - 1)).collect()
    }

    fn transact(&mut self, mut group: Vec<Request>) {
        for request in &mut group {
            if let Request::Configure(config) = request
                && let Some(config) = config.take()
            {
                // In force for all of the group, and whether or not the store takes it.
                self.config = *config;
                self.engine = None;
            }
        }
        let ended = self.attempt(&mut group);
        if let Err(failure) = &ended {
            self.outputs.clear();
            self.counters.store_failed(failure.to_string());
            error!(event = "store-failed", %failure, "nothing of this transaction was kept; senders will try again");
            self.engine = None;
        }
        for request in group {
            request.answer(&ended);
        }
        self.act();
    }

    fn attempt(&mut self, group: &mut [Request]) -> Result<(), StoreError> {
        let mut tx = self.store.begin()?;
        let now = Timestamp::now();
        let mut engine = match self.engine.take() {
            Some(engine) => engine,
            None => started(&self.config, &mut tx, now)?,
        };
        self.outputs.extend(decided(&mut engine));
        for request in group {
            match request {
                Request::Input(input, answer) => {
                    let Some(input) = input.take() else { continue };
                    let before = self.outputs.len();
                    let outcome = engine.handle(&mut tx, now, input)?;
                    self.outputs.extend(decided(&mut engine));
                    match answer {
                        Answer::Nobody => {}
                        Answer::Outcome(waits) => waits.done = Some(outcome),
                        Answer::Events(waits) => waits.done = Some(events_of(&self.outputs[before..])),
                    }
                }
                Request::Bundle(site, waits) => {
                    let before = self.outputs.len();
                    let messages = engine.bundle(&mut tx, now, site)?;
                    self.outputs.extend(decided(&mut engine));
                    waits.done = Some((messages, events_of(&self.outputs[before..])));
                }
                Request::Job(job) => {
                    tx.savepoint()?;
                    let (keep, contexts) = job.run(&mut tx);
                    tx.end_savepoint(keep)?;
                    for context in contexts {
                        engine.handle(&mut tx, now, Input::LocalCommit { context })?;
                        self.outputs.extend(decided(&mut engine));
                    }
                }
                // Taken before the transaction began.
                Request::Configure(_) | Request::Stop => {}
            }
        }
        tx.commit()?;
        self.engine = Some(engine);
        Ok(())
    }

    /// Acts on what the engine decided; what it decided is on disk.
    fn act(&mut self) {
        for output in std::mem::take(&mut self.outputs) {
            match output {
                Output::Mail { to, mail, payload, signer } => {
                    // A closed channel means that we are stopping; the engine sends again after the start.
                    let _ = self.mail.send(Mail { to, mail, payload, signer });
                }
                Output::Event(event) => {
                    self.counters.event(&event);
                    events::log(&event);
                }
                // When nobody listens any more we are stopping; what is told is told again.
                Output::Card { site, cards } => drop(self.told.send(Told::Cards { site, cards })),
                Output::Introduced { by, introductions } => {
                    drop(self.told.send(Told::Introductions { by, introductions }));
                }
            }
        }
    }
}

/// What the engine decided since it was last asked.
fn decided(engine: &mut Engine) -> impl Iterator<Item = Output> {
    std::iter::from_fn(|| engine.output())
}

/// Those outputs that are to be told.
fn events_of(outputs: &[Output]) -> Vec<Event> {
    let events = outputs.iter().filter_map(|output| match output {
        Output::Event(event) => Some(event.clone()),
        Output::Mail { .. } | Output::Card { .. } | Output::Introduced { .. } => None,
    });
    events.collect()
}

fn started(config: &EngineConfig, tx: &mut dyn Write, now: Timestamp) -> Result<Engine, StoreError> {
    let mut engine = Engine::new(config.clone());
    engine.handle(tx, now, Input::Start)?;
    Ok(engine)
}
