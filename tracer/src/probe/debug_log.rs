//! Log lines of the probes, on standard error. For work on the probes: never in a normal build.

use std::{thread, time::Duration};

use aya::Ebpf;
use aya_log::EbpfLogger;

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
pub(super) fn start(ebpf: &mut Ebpf) -> Result<(), String> {
    const EVERY: Duration = Duration::from_millis(20);
    let mut logger = EbpfLogger::init_with_logger(ebpf, StandardError)
        .map_err(|error| format!("the object was built without log lines: {error}"))?;
    thread::spawn(move || {
        loop {
            logger.flush();
            thread::sleep(EVERY);
        }
    });
    Ok(())
}
