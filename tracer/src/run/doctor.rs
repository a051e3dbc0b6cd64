//! `tracer doctor`: what this machine allows.

use std::collections::BTreeMap;

use super::{
    capabilities::{self, Feature, NEEDS},
    cgroup::{self, CommandCgroup},
    libraries::libraries,
    sandbox,
    watch::Watch,
    witness::ExecWitness,
};
use crate::{
    perf::MapStream,
    probe::{
        self, LoadError, Loaded, Lockdown,
        sensors::{FILES, MAPS, PlainSensor, SENSORS},
    },
    report::{CapabilityFinding, DIAGNOSIS, Diagnosis, Finding, SensorFinding},
    version::version,
};

/// Tries everything `run` needs, and leaves nothing attached.
pub fn diagnose(options: &probe::Options) -> Diagnosis {
    let offsets = probe::Offsets::of_kernel(&options.btf);
    let cgroup = CommandCgroup::make(std::process::id());
    let (mut sensors, verified_instructions, refused) = match probes(options, &cgroup) {
        Ok((sensors, instructions)) => (sensors, instructions, None),
        Err(error) => (Vec::new(), BTreeMap::new(), Some(error.to_string())),
    };
    sensors.push(plain(
        &FILES,
        Watch::probe(),
        "no claim that forbids a program found here can be proven",
    ));
    let maps = MapStream::open(options.maps_ring_bytes(), false);
    sensors.push(plain(&MAPS, maps, "no claim over programs can be proven"));
    let whole = |offsets: &probe::Offsets| {
        format!("{}: all {} fields found", options.btf.display(), offsets.0.len())
    };
    Diagnosis {
        schema: DIAGNOSIS,
        tracer: version().into(),
        kernel: probe::kernel_release(),
        machine: std::env::consts::ARCH.into(),
        lockdown: match probe::lockdown() {
            Lockdown::Mode(mode) => Some(mode),
            Lockdown::Unknown => None,
        },
        euid: rustix::process::geteuid().as_raw(),
        capabilities: held_capabilities(),
        usable: offsets.is_ok() && refused.is_none() && may_run(cgroup.is_ok()),
        type_information: Finding::of(&offsets, whole, ""),
        exec_witness: Finding::of(
            &ExecWitness::open(),
            |_| "inherited perf counter on sched:sched_process_exec".into(),
            "no claim over programs can be proven",
        ),
        cgroup: Finding::of(
            &cgroup,
            |cgroup| format!("can be made, as {}", cgroup.path().display()),
            "no claim over connections can be proven",
        ),
        sandbox: sandbox::available(),
        sensors_refused: refused,
        sensors,
        verified_instructions,
    }
}

/// Whether the canary at the start will be seen, with the capabilities held.
fn may_run(has_cgroup: bool) -> bool {
    let held = capabilities::held();
    let needed = |need: &&capabilities::Need| {
        need.feature == Feature::Always && (need.without.is_none() || has_cgroup)
    };
    NEEDS.iter().filter(needed).all(|need| need.is_met(held))
}

fn held_capabilities() -> Vec<CapabilityFinding> {
    let held = capabilities::held();
    let finding = |need: &capabilities::Need| CapabilityFinding {
        name: need.name.into(),
        held: need.is_met(held),
        needed: need.feature.name().into(),
        to: need.to.into(),
        without: need.without.map(Into::into),
    };
    NEEDS.iter().map(finding).collect()
}

type Probes = (Vec<SensorFinding>, BTreeMap<String, u32>);

/// Attaches everything that any policy can ask for, and what `attach` needs.
fn probes(
    options: &probe::Options,
    cgroup: &Result<CommandCgroup, String>,
) -> Result<Probes, LoadError> {
    let options = probe::Options {
        attempts: true,
        resolver: true,
        http: true,
        libraries: libraries(&[]),
        hand_offs: true,
        debuggers: true,
        find: true,
        follow_cgroup: true,
        ..options.clone()
    };
    let attached = Loaded::new(&options, cgroup::target(cgroup))?.attach()?;
    let instructions = attached.verified_instructions()?;
    let finding = |state: &crate::record::schema::SensorState| SensorFinding {
        sensor: state.sensor.clone(),
        hook: state.missing.is_none().then(|| state.hook.clone()),
        purpose: SENSORS
            .iter()
            .find(|sensor| sensor.name == state.sensor)
            .map_or("", |sensor| sensor.purpose)
            .into(),
        missing: state.missing.clone(),
        cannot_see: state.cannot_see.clone(),
        tax: state.tax.clone(),
    };
    let sensors = attached.sensors.iter().map(finding).collect();
    let named = |(program, count): (&str, u32)| (program.to_owned(), count);
    Ok((sensors, instructions.into_iter().map(named).collect()))
}

fn plain<T>(sensor: &PlainSensor, tried: std::io::Result<T>, without: &str) -> SensorFinding {
    SensorFinding {
        sensor: sensor.name.into(),
        hook: tried.is_ok().then(|| sensor.hook.into()),
        purpose: sensor.purpose.into(),
        missing: tried.err().map(|error| format!("{error}; without it {without}")),
        cannot_see: sensor.cannot_see.into(),
        tax: String::new(),
    }
}
