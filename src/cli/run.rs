//! `bridgehead run` and `bridgehead reload`.

use std::io;
use std::path::Path;

use super::failure::{Failure, IO, OK, OrFail, UNAVAILABLE};
use super::site;
use crate::control::operation::Operation;
use crate::daemon;
use crate::log;

pub fn run(file: &Path) -> Result<u8, Failure> {
    let config = site::load(file)?;
    let key = site::read_key(&config)?;
    log::start(&config.log).or_fail(IO, || "the log".to_owned())?;
    daemon::run(config, key).map(|()| OK)
}

pub fn reload(file: &Path) -> Result<u8, Failure> {
    let config = site::load(file)?;
    match site::daemon(&config)? {
        Some(daemon) => {
            let answer = daemon.ask(&Operation::Reload, None, &mut io::stdout(), &mut io::stderr());
            answer.or_fail(IO, || "the daemon".to_owned())
        }
        None => Err(Failure::new(UNAVAILABLE, "the daemon does not run")),
    }
}
