//! `tracer doctor`: what this machine allows.

use std::fmt::Write as _;

use super::{
    cgroup::{self, CommandCgroup},
    engine,
    libraries::libraries,
    watch::Watch,
    witness::ExecWitness,
};
use crate::{
    perf::MapStream,
    probe::{
        self, Loaded, Lockdown,
        sensors::{FILES, MAPS, SENSORS},
    },
};

/// The findings, and whether `tracer run` can work.
#[derive(Debug)]
pub struct Diagnosis {
    pub text: String,
    pub usable: bool,
}

/// Tries everything `run` needs, and leaves nothing attached.
pub fn diagnose(options: &probe::Options) -> Diagnosis {
    let mut text = String::new();
    let mut line = |what: &str, finding: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{what:<22} {finding}");
    };
    line("tracer", engine::VERSION);
    line("kernel", &format!("{} ({})", probe::kernel_release(), std::env::consts::ARCH));
    line(
        "lockdown",
        &match probe::lockdown() {
            Lockdown::Mode(mode) => mode,
            Lockdown::Unknown => {
                "unknown (securityfs is not mounted, or the kernel has none)".into()
            }
        },
    );
    // SAFETY: geteuid cannot fail and has no precondition.
    let euid = unsafe { libc::geteuid() };
    line(
        "running as",
        if euid == 0 { "root" } else { "no root: loading probes will most likely be refused" },
    );
    let mut usable = true;
    match probe::Offsets::of_kernel(&options.btf) {
        Ok(offsets) => line(
            "type information",
            &format!("{}: all {} fields found", options.btf.display(), offsets.0.len()),
        ),
        Err(error) => {
            usable = false;
            line("type information", &format!("NO: {error}"));
        }
    }
    match ExecWitness::open() {
        Ok(_) => line("exec witness", "inherited perf counter on sched:sched_process_exec"),
        Err(error) => line(
            "exec witness",
            &format!("NO: {error}; without it no claim over programs can be proven"),
        ),
    }
    // Everything that any policy can ask for.
    let options = probe::Options {
        attempts: true,
        resolver: true,
        http: true,
        libraries: libraries(&[]),
        hand_offs: true,
        ..options.clone()
    };
    let cgroup = CommandCgroup::make();
    line(
        "cgroup of the command",
        &match &cgroup {
            Ok(cgroup) => format!("can be made, as {}", cgroup.path().display()),
            Err(why) => format!("NO: {why}; without it no claim over connections can be proven"),
        },
    );
    let attached = Loaded::new(&options, cgroup::target(&cgroup)).and_then(|loaded| {
        let mut attached = loaded.attach()?;
        Ok((attached.verified_instructions()?, attached))
    });
    match attached {
        Ok((instructions, attached)) => {
            for state in &attached.sensors {
                let purpose = SENSORS
                    .iter()
                    .find(|sensor| sensor.name == state.sensor)
                    .map_or("", |sensor| sensor.purpose);
                let finding = match &state.missing {
                    Some(why) => format!("NO: {why}"),
                    None => format!("{}: {purpose}", state.hook),
                };
                line(&format!("sensor {}", state.sensor), &finding);
                if !state.cannot_see.is_empty() {
                    line("", &format!("cannot see: {}", state.cannot_see));
                }
                if !state.tax.is_empty() {
                    line("", &format!("only when asked for: {}", state.tax));
                }
            }
            let counts: Vec<String> =
                instructions.iter().map(|(program, count)| format!("{program} {count}")).collect();
            line("verified instructions", &counts.join(", "));
        }
        Err(error) => {
            usable = false;
            line("sensors", &format!("NO: {error}"));
        }
    }
    let finding = match Watch::probe() {
        Ok(()) => format!("{}: {}", FILES.hook, FILES.purpose),
        Err(error) => format!(
            "NO: {error}; without it no claim that forbids a program found here can be proven"
        ),
    };
    line(&format!("sensor {}", FILES.name), &finding);
    line("", &format!("cannot see: {}", FILES.cannot_see));
    let finding = match MapStream::open(options.maps_ring_bytes(), false) {
        Ok(_) => format!("{}: {}", MAPS.hook, MAPS.purpose),
        Err(error) => format!("NO: {error}; without it no claim over programs can be proven"),
    };
    line(&format!("sensor {}", MAPS.name), &finding);
    line("", &format!("cannot see: {}", MAPS.cannot_see));
    line(
        "verdict",
        if usable {
            "tracer run works here"
        } else {
            "tracer run does not work here: see the lines with NO"
        },
    );
    Diagnosis { text, usable }
}
