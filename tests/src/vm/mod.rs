//! The checks that run inside a virtual machine, as its process 1.
//!
//! Each prints one line, `vm-check NAME ok|FAILED|skipped DETAIL`, and the last line says how many
//! there were. `cargo xtask vm` reads them from the serial console.

mod checks;
mod machine;
pub mod odd;
mod outside;
mod pids;
mod recording;
mod sockets;
mod traced;

use std::io::{self, Write as _};

use anyhow::Result;

use self::traced::Traced;

/// What a check found out.
enum Finding {
    /// With something worth reading.
    Ok(String),
    /// This kernel cannot do what is checked.
    Skipped(String),
}

type Check = fn(&mut Traced) -> Result<Finding>;

/// Never returns: the end of process 1 would be a kernel panic.
pub fn init() -> ! {
    if let Err(error) = machine::set_up() {
        say(&format!("vm-check set-up FAILED {}", on_one_line(&error)));
    }
    say(&format!("vm-kernel {}", machine::release()));
    let mut traced = Traced::default();
    for (name, check) in checks::ALL {
        let line = match check(&mut traced) {
            Ok(Finding::Ok(detail)) => format!("ok {detail}"),
            Ok(Finding::Skipped(reason)) => format!("skipped {reason}"),
            Err(error) => format!("FAILED {}", on_one_line(&error)),
        };
        say(&format!("vm-check {name} {line}"));
    }
    say(&format!("vm-end {}", checks::ALL.len()));
    let error = machine::power_off();
    panic!("cannot power off: {error}");
}

/// A line of its own even where the kernel has just written to the same console.
fn say(line: &str) {
    // With the console gone there is nobody to tell, and the missing line is a failure outside.
    let _: io::Result<()> = writeln!(io::stdout(), "{line}");
}

fn on_one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").split('\n').map(str::trim).collect::<Vec<_>>().join(" | ")
}
