//! `bridgehead sample`: realistic people to try things with.

use std::io::{self, BufWriter, Write};

use super::arguments::Sample;
use super::failure::{DATA, Failure, IO, OK, OrFail};
use crate::directory::dn::Dn;
use crate::sample::{Changes, Directory};

pub fn run(arguments: &Sample) -> Result<u8, Failure> {
    let context = Dn::parse(&arguments.context).or_fail(DATA, || arguments.context.clone())?;
    let sample = Directory { people: arguments.people, seed: arguments.seed, photos: arguments.photos };
    let mut out = BufWriter::with_capacity(256 << 10, io::stdout().lock());
    let written = match arguments.changes {
        None => sample.write_ldif(&context, &mut out).map(drop),
        Some(count) => {
            let changes = Changes { count, mixed: arguments.mixed, base: arguments.base };
            sample.write_changes(&context, changes, &mut out)
        }
    };
    match written.and_then(|()| out.flush()) {
        // `bridgehead sample | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(OK),
        written => written.map(|()| OK).or_fail(IO, || "standard output".to_owned()),
    }
}
