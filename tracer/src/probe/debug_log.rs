//! Log lines of the probes, on standard error. For work on the probes: never in a normal build.

use std::{thread, time::Duration};

use aya_log::EbpfLogger;

use super::{attached::about_program, load::Loaded};

struct StandardError;

impl log::Log for StandardError {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("probe: {} {}", record.target(), record.args());
    }

    fn flush(&self) {}
}

/// Prints from now on, in a thread of its own.
pub(super) fn start(loaded: &Loaded) -> Result<(), String> {
    const EVERY: Duration = Duration::from_millis(20);
    // All programs write to the same ring.
    let program = loaded.program("exec").map_err(|error| error.to_string())?;
    let id = about_program(program, "prog_id:").and_then(|id| id.try_into().ok());
    let id = id.ok_or("the kernel does not number its programs")?;
    let mut logger = EbpfLogger::init_from_id_with_logger(id, StandardError)
        .map_err(|error| format!("the object was built without log lines: {error}"))?;
    thread::spawn(move || {
        loop {
            logger.flush();
            thread::sleep(EVERY);
        }
    });
    Ok(())
}
