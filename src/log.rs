//! Where the log goes: text or JSON on standard error, or the journal with native fields.
//!
//! PROMISES
//!   One line for each relayed message and each replication event. The field `event` names it; names
//!   and fields stay as they are, operators' filters rely on them.

use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
    Journald,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    pub format: LogFormat,
    /// A level, or directives as tracing understands them: `info`, `bridgehead=debug`.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { format: LogFormat::Text, level: "info".to_owned() }
    }
}

/// Reads a level or directives; used to check the configuration before it is in force.
pub fn filter(level: &str) -> Result<EnvFilter, String> {
    // mailin logs every reply that it would have given; ours are logged where they are decided.
    let quiet = "mailin=off".parse().expect("a constant directive");
    // A single word that is no level is taken for the name of a part of the program, of which there is none: no line at all.
    let single = level.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if single && level.parse::<LevelFilter>().is_err() {
        return Err("is not off, error, warn, info, debug or trace, nor a list of TARGET=LEVEL".to_owned());
    }
    EnvFilter::try_new(level).map(|filter| filter.add_directive(quiet)).map_err(|error| error.to_string())
}

/// Starts the log of this process. A second call changes nothing.
pub fn start(config: &LogConfig) -> Result<(), String> {
    let registry = tracing_subscriber::registry().with(filter(&config.level)?);
    let text = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let started = match config.format {
        LogFormat::Text => registry.with(text.with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(text.json().flatten_event(true)).try_init(),
        LogFormat::Journald => {
            let journal = tracing_journald::layer().map_err(|error| format!("journald: {error}"))?;
            registry.with(journal).try_init()
        }
    };
    drop(started);
    Ok(())
}
