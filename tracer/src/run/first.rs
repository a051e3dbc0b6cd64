//! The first line of a recording.

use std::io;

use super::{
    Settings, addresses,
    clock::{boottime_ns, wall_offset_ns},
    inherited,
    known::Known,
    user::CallingUser,
    watch::Watch,
};
use crate::{
    model::Bytes,
    probe::{Attached, sensors},
    record::schema::{self, FileWatch, Host, SCHEMA, SensorState, Start},
    version::version,
};

fn plain(sensor: &sensors::PlainSensor, missing: Option<String>) -> SensorState {
    SensorState {
        sensor: sensor.name.into(),
        hook: sensor.hook.into(),
        cannot_see: sensor.cannot_see.into(),
        tax: String::new(),
        missing,
    }
}

pub(super) fn start_record(
    settings: &Settings,
    attached: &Attached,
    known: Known,
    watch: &Watch,
    user: Option<&CallingUser>,
    cgroup: schema::CommandCgroup,
) -> io::Result<Start> {
    use std::os::unix::ffi::OsStrExt as _;
    // Whether mappings can be watched shows when the command is started, and stands in the last line.
    let watches_maps = settings.probes.hand_offs || settings.probes.http;
    let maps = watches_maps.then(|| plain(&sensors::MAPS, None));
    let others = [plain(&sensors::FILES, watch.refused())].into_iter().chain(maps);
    let FileWatch { marks, mut gaps } = watch.report();
    gaps.extend(known.gaps);
    let t_ns = boottime_ns()?;
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
    };
    Ok(Start {
        schema: SCHEMA,
        tracer: version().into(),
        t_ns,
        wall_offset_ns: wall_offset_ns()?,
        host: Host {
            name: read("/proc/sys/kernel/hostname"),
            kernel: crate::probe::kernel_release(),
            machine: std::env::consts::ARCH.into(),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            addresses: addresses::of_this_machine(),
        },
        command: settings.command.iter().map(|word| Bytes::from(word.as_bytes())).collect(),
        cwd: std::env::current_dir().map(|cwd| Bytes::from(cwd.as_path())).unwrap_or_default(),
        // SAFETY: these cannot fail and have no precondition.
        uid: user.map_or_else(|| unsafe { libc::getuid() }, |user| user.uid),
        // SAFETY: as above.
        gid: user.map_or_else(|| unsafe { libc::getgid() }, |user| user.gid),
        armed_before_first_instruction: true,
        sensors: attached.sensors.iter().cloned().chain(others).collect(),
        policies: settings.policies.clone(),
        catalogue: Some(known.entries),
        endpoints: Some(settings.catalogue.endpoints.rules().clone()),
        inherited_sockets: inherited::sockets(inherited::is_to_one),
        inherited_network_sockets: inherited::sockets(inherited::is_network),
        enforced: settings.probes.enforce,
        known_programs: known.copies,
        known_paths: known.paths,
        known_folders: known.folders,
        known_packages: known.packages,
        interpreters: known.interpreters,
        files: Some(FileWatch { marks, gaps }),
        cgroup: Some(cgroup),
        credentials: Some(watch.credentials.report()),
        mcp_servers: settings.catalogue.mcp_servers.clone(),
        part_bytes: settings.part_bytes,
        attached: None,
    })
}
