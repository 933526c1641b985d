//! Arguments, then one call; its failure becomes a line on standard error and the exit status.

use std::process::ExitCode;

use clap::Parser;

use bridgehead::cli::{self, Arguments};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let status = match cli::run(Arguments::parse()) {
        Ok(status) => status,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("bridgehead: {}", failure.message);
            }
            failure.status
        }
    };
    ExitCode::from(status)
}
