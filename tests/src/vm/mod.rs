//! The integration tests in a virtual machine with another kernel, as its process 1.
//!
//! One boot goes through several [`PROFILES`]: the machine is changed, then some of the tests run. Each
//! prints one line, `vm-check PROFILE::TEST ok|FAILED|skipped DETAIL`, and the last line says how many
//! there were. `cargo xtask vm` reads them from the serial console.

mod machine;
mod profile;
pub mod report;
mod run;

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

use anyhow::{Context as _, Result};

pub use self::profile::{
    ONLY_IN_MACHINES, PROFILES, Profile, forbidden_ways, is_selected, patience, profile,
    tracer_options,
};

/// Where the budgets of instructions are, for messages.
pub const BUDGETS: &str = "tests/budgets.toml";

/// The most instructions that a kernel's verifier may walk in each program.
pub fn budgets() -> Result<BTreeMap<String, u64>> {
    toml::from_str(include_str!("../../budgets.toml")).context(BUDGETS)
}

/// Never returns: the end of process 1 would be a kernel panic.
pub fn init() -> ! {
    let mut checks = 0;
    let mut check = |name: &str, line: &str| {
        checks += 1;
        say(&format!("vm-check {name} {}", line.replace(['\n', '\r'], " | ")));
    };
    match machine::set_up().and_then(|()| machine::wanted()) {
        Ok(profiles) => {
            say(&format!("vm-kernel {}", machine::release()));
            for profile in profiles {
                if let Err(error) = run::all_of(profile, &mut check) {
                    check(&format!("{}::set-up", profile.name), &format!("FAILED {error:#}"));
                }
            }
        }
        Err(error) => check("set-up", &format!("FAILED {error:#}")),
    }
    say(&format!("vm-end {checks}"));
    let error = machine::power_off();
    panic!("cannot power off: {error}");
}

/// A line of its own even where the kernel has just written to the same console.
fn say(line: &str) {
    // With the console gone there is nobody to tell, and the missing line is a failure outside.
    let _: io::Result<()> = writeln!(io::stdout(), "{line}");
}
