//! `bridgehead route` and `bridgehead deliver`: one address, one message.

use std::io;
use std::path::Path;

use super::failure::{DATA, Failure, IO, OK, OrFail, TRY_AGAIN};
use super::site;
use crate::control::conversation;
use crate::control::operation::Operation;
use crate::route;

pub fn route(address: &str, config_file: &Path) -> Result<u8, Failure> {
    let config = site::load(config_file)?;
    let path =
        crate::smtp::Path::parse(address).or_fail(DATA, || format!("\"{address}\" is not an address"))?;
    print!("{}", route::explain(&config.relay, &path));
    Ok(OK)
}

/// Exit statuses are those that mail servers expect of a pipe: 75 keeps the message and tries again.
pub fn deliver(mailbox: Option<String>, config_file: &Path) -> Result<u8, Failure> {
    let config = site::load(config_file)?;
    let socket = config.site.control_socket();
    let Some(daemon) = conversation::connect(&socket).or_fail(TRY_AGAIN, || socket.display().to_string())?
    else {
        return Err(Failure::new(
            TRY_AGAIN,
            "the daemon does not run; the message is to be kept and tried again",
        ));
    };
    let operation = Operation::Deliver { mailbox };
    let answer = daemon.ask(&operation, Some(&mut io::stdin().lock()), &mut io::stdout(), &mut io::stderr());
    answer
        .or_fail(TRY_AGAIN, || "the daemon".to_owned())
        .map(|status| if status == IO { TRY_AGAIN } else { status })
}
