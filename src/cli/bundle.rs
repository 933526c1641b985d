//! `bridgehead bundle`: a first load by disk.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::Timestamp;

use super::directory::open_store;
use super::failure::{CANNOT_CREATE, DATA, Failure, IO, OK, OrFail, TRY_AGAIN, UNAVAILABLE};
use super::site;
use crate::config::Config;
use crate::control::bundle::ApplyError;
use crate::control::operation::Operation;
use crate::control::{bundle, operation};
use crate::daemon::engine_config;
use crate::replication::engine::bundle::BY_FILE_DAYS;
use crate::replication::engine::{Engine, Event, Input, Output};

pub fn create(partner: &str, file: &Path, config_file: &Path) -> Result<u8, Failure> {
    let config = site::load(config_file)?;
    if config.partner(partner).is_none() {
        return Err(Failure::new(UNAVAILABLE, format!("no site {partner} is connected")));
    }
    let name = || file.display().to_string();
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let mut out = opened.or_fail(CANNOT_CREATE, name)?;
    let made = write(&config, partner, &mut out).and_then(|status| {
        out.sync_all().or_fail(IO, name)?;
        Ok(status)
    });
    if !matches!(made, Ok(OK)) {
        // What is left of it is good for nothing.
        let _ = fs::remove_file(file);
        return made;
    }
    let octets = out.metadata().or_fail(IO, name)?.len();
    println!("{}: {octets} octets, which only {partner} can open.", file.display());
    println!("Carry it there, then: bridgehead bundle apply FILE");
    println!(
        "Until it is taken, for {BY_FILE_DAYS} days at most, no full load goes to {partner} by mail; \
         `bridgehead site resume {partner}` ends the wait."
    );
    made
}

fn write(config: &Config, partner: &str, out: &mut File) -> Result<u8, Failure> {
    if let Some(daemon) = site::daemon(config)? {
        let operation = Operation::BundleCreate { site: partner.to_owned() };
        return daemon.ask(&operation, None, out, &mut io::stderr()).or_fail(IO, || "the daemon".to_owned());
    }
    let key = site::read_key(config)?;
    let failed = |error| Failure::new(TRY_AGAIN, error);
    let mut engine = Engine::new(engine_config(config, &key));
    let mut store = open_store(config)?;
    let mut tx = store.begin().map_err(failed)?;
    let messages = engine.bundle(&mut tx, Timestamp::now(), partner).map_err(failed)?;
    bundle::write(config, &key, partner, &messages, out).map_err(|error| Failure::new(UNAVAILABLE, error))?;
    tx.commit().map_err(failed)?;
    eprintln!("{}", operation::report(&events(&mut engine)));
    Ok(OK)
}

pub fn apply(file: &Path, config_file: &Path) -> Result<u8, Failure> {
    let mut config = site::load(config_file)?;
    let mut input = File::open(file).or_fail(DATA, || file.display().to_string())?;
    if let Some(daemon) = site::daemon(&config)? {
        let answer =
            daemon.ask(&Operation::BundleApply, Some(&mut input), &mut io::stdout(), &mut io::stderr());
        return answer
            .or_fail(IO, || "the daemon went away; to take the bundle again is harmless".to_owned());
    }
    let key = site::read_key(&config)?;
    // The store first: whoever holds it is the one writer, of the sites' files too.
    let mut store = open_store(&config)?;
    let failed = |error: ApplyError| Failure::new(error.status(), error);
    let proved = bundle::prove(&config, &key, input).map_err(failed)?;
    if proved.pin().map_err(failed)? {
        config = site::load(config_file)?;
    }
    let mut engine = Engine::new(engine_config(&config, &key));
    let mut tx = store.begin().map_err(|error| Failure::new(TRY_AGAIN, error))?;
    let mut tell = |input: Input| {
        engine.handle(&mut tx, Timestamp::now(), input).map_err(|error| error.to_string())?;
        Ok(events(&mut engine))
    };
    let done = proved.take(&key, &mut tell).map_err(failed)?;
    tx.commit().map_err(|error| Failure::new(TRY_AGAIN, error))?;
    println!("{done}");
    Ok(done.status())
}

/// Mail that followed is sent by the daemon once it runs.
fn events(engine: &mut Engine) -> Vec<Event> {
    let events = std::iter::from_fn(|| engine.output()).filter_map(|output| match output {
        Output::Event(event) => Some(event),
        Output::Mail { .. } | Output::Card { .. } | Output::Introduced { .. } => None,
    });
    events.collect()
}
