//! The profiles of a boot, and which tests run in each.
//!
//! A processor that is emulated is slow, so not all tests run there: one or more of each thing that
//! probes read from a kernel, none of the storms. What needs Node, the AWS CLI, a browser or runc
//! runs on the machine itself only.

use std::time::Duration;

use anyhow::Result;

use super::machine;

/// Which of Debian's builds of a kernel a profile is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Build {
    /// Without drivers that virtual machines have no use for.
    Cloud,
    /// What a machine with a disk and a screen has.
    Plain,
    /// PREEMPT_RT, where locks sleep and interrupts are threads.
    RealTime,
}

/// A state of the machine, and the tests that run in it.
#[derive(Debug)]
pub struct Profile {
    pub name: &'static str,
    /// For the documentation.
    pub what: &'static str,
    /// What brings the machine into that state, from that of the profile before.
    pub(super) prepare: fn() -> Result<()>,
    pub(super) build: Build,
    /// Ways to attach that tracer is kept from.
    pub forbidden: &'static [&'static str],
    /// Whether the command can have a cgroup of its own.
    pub has_v2_cgroups: bool,
    /// Beginnings of names.
    pub(super) tests: &'static [&'static str],
    /// Of those, the ones that do not run.
    pub(super) but_not: &'static [&'static str],
}

/// Tests that change what all processes of a machine share.
pub const ONLY_IN_MACHINES: &[&str] = &[
    "pids::reused",
    "sensors::refused_when_confidential",
    "attacked::clock_set",
    "maps::processors_come_and_go",
];

const SENSES: &[&str] = &["sensors::each_sees"];
const OTHER_SENSES: &[&str] = &["sensors::each_sees_by_other_ways"];
/// Of kernels that differ from one that is tested in full by their configuration alone.
const SENSES_AND_BUDGETS: &[&str] = &["sensors::each_sees", "sensors::instruction_budgets"];
const WITHOUT_FENTRY: &[&str] = &["fexit", "uprobe-multi"];
const WITHOUT_SEND_TRACEPOINT: &[&str] = &["local_send", "foreign_send"];

/// In this order: lockdown cannot be taken back.
pub const PROFILES: &[Profile] = &[
    Profile {
        name: "full",
        what: "as Debian has it, with v2 cgroups",
        prepare: || Ok(()),
        build: Build::Cloud,
        forbidden: &[],
        has_v2_cgroups: true,
        tests: &[
            "sensors::each_sees",
            "sensors::instruction_budgets",
            "tls::debian_python",
            "exec::argv_of_128_kib_in_one_word",
            "exec::times_and_size_of_the_file",
            "exec::path_of_more_parts_than_are_read",
            "exec::script_of_a_script",
            "exec::memfd",
            "exec::deleted_file",
            "exec::from_another_thread",
            "exec::clone_parent",
            "exec::setuid",
            "exec::leader_first_then_exec",
            "namespaces::",
            "connect::v4_mapped",
            "connect::non_blocking",
            "connect::bytes_both_ways",
            "connect::by_a_thread",
            "connect::multipath_counts_once",
            "connect::fast_open",
            "datagrams::repeats_are_one_row",
            "datagrams::raw_sockets_once",
            "datagrams::leaving_the_cgroup",
            "datagrams::host_in_pieces",
            "attempts::an_allowed_attempt",
            "outside::unknown_service",
            "outside::sent_by_sendfile",
            "outside::empty_messages",
            "outside::datagrams_with_an_address",
            "outside::listener_of_the_tree_is_reaped",
            "outside::debugger",
            "enforce::",
            "maps::mapped_and_not_run",
            "loss::net_records",
            "loss::silent_probes",
            "pids::",
            "watch::left_for_others",
            "resolve::by_threads_and_children",
            "attacked::detached_probe",
            "attacked::clock_set",
            "attach::tree",
            "attach::cgroup",
        ],
        but_not: OTHER_SENSES,
    },
    Profile {
        name: "no fentry",
        what: "`--debug-forbid=fexit`, `=uprobe-multi`: no programs on kernel functions, and of \
               breakpoints each on its own",
        prepare: || Ok(()),
        build: Build::Cloud,
        forbidden: WITHOUT_FENTRY,
        has_v2_cgroups: true,
        tests: &[
            "sensors::each_sees",
            "attempts::asked_for",
            "loss::silent_probes",
            "outside::debugger",
            "tls::debian_python",
        ],
        but_not: OTHER_SENSES,
    },
    Profile {
        name: "no send tracepoint",
        what: "`--debug-forbid=local_send`, `=foreign_send`: programs on functions in their place",
        prepare: || Ok(()),
        build: Build::Cloud,
        forbidden: WITHOUT_SEND_TRACEPOINT,
        has_v2_cgroups: true,
        tests: &[
            "sensors::each_sees",
            "outside::sent_by_sendfile",
            "outside::datagrams_with_an_address",
            "loss::silent_probes",
        ],
        but_not: OTHER_SENSES,
    },
    Profile {
        name: "no kprobes",
        what: "kprobes are switched off (debugfs `kprobes/enabled`); no sensor uses them",
        prepare: machine::without_kprobes,
        build: Build::Cloud,
        forbidden: &[],
        has_v2_cgroups: true,
        tests: SENSES,
        but_not: &[],
    },
    Profile {
        name: "processors",
        what: "with v2 cgroups, while the second processor goes offline and comes back",
        prepare: || Ok(()),
        build: Build::Cloud,
        forbidden: &[],
        has_v2_cgroups: true,
        tests: &["maps::processors_come_and_go"],
        but_not: &[],
    },
    Profile {
        name: "cgroup hybrid",
        what: "v1 controllers are mounted, v2 beside them at `unified`",
        prepare: machine::hybrid_cgroups,
        build: Build::Cloud,
        forbidden: &[],
        has_v2_cgroups: true,
        tests: &[
            "sensors::each_sees",
            "attach::first_version_cgroup",
            "attach::first_version_container",
        ],
        but_not: &[],
    },
    Profile {
        name: "cgroup v1",
        what: "v1 controllers alone: the command has no cgroup of its own, and the verdict says so",
        prepare: machine::v1_cgroups,
        build: Build::Cloud,
        forbidden: &[],
        has_v2_cgroups: false,
        tests: &[
            "sensors::each_sees",
            "attach::first_version_cgroup",
            "attach::first_version_container",
        ],
        but_not: &[],
    },
    Profile {
        name: "lockdown integrity",
        what: "`lockdown=integrity`, with v2 cgroups",
        prepare: || {
            machine::v2_cgroups()?;
            machine::lock_down("integrity")
        },
        build: Build::Cloud,
        forbidden: &[],
        has_v2_cgroups: true,
        tests: SENSES,
        but_not: &[],
    },
    Profile {
        name: "lockdown confidentiality",
        what: "`lockdown=confidentiality`: tracer cannot work, and says so",
        prepare: || machine::lock_down("confidentiality"),
        build: Build::Cloud,
        forbidden: &[],
        has_v2_cgroups: true,
        tests: &["sensors::refused_when_confidential"],
        but_not: &[],
    },
    Profile {
        name: "real time",
        what: "Debian's kernels with PREEMPT_RT, with v2 cgroups",
        prepare: || Ok(()),
        build: Build::RealTime,
        forbidden: &[],
        has_v2_cgroups: true,
        tests: &[
            "sensors::each_sees",
            "sensors::instruction_budgets",
            "datagrams::repeats_are_one_row",
            "enforce::",
            "exec::from_another_thread",
            "loss::net_records",
        ],
        but_not: OTHER_SENSES,
    },
    Profile {
        name: "real time without fentry",
        what: "PREEMPT_RT, and what `no fentry` is",
        prepare: || Ok(()),
        build: Build::RealTime,
        forbidden: WITHOUT_FENTRY,
        has_v2_cgroups: true,
        tests: SENSES,
        but_not: OTHER_SENSES,
    },
    Profile {
        name: "real time without send tracepoint",
        what: "PREEMPT_RT, and what `no send tracepoint` is",
        prepare: || Ok(()),
        build: Build::RealTime,
        forbidden: WITHOUT_SEND_TRACEPOINT,
        has_v2_cgroups: true,
        tests: SENSES,
        but_not: OTHER_SENSES,
    },
    Profile {
        name: "plain",
        what: "Debian's kernels with all drivers, with v2 cgroups",
        prepare: || Ok(()),
        build: Build::Plain,
        forbidden: &[],
        has_v2_cgroups: true,
        tests: SENSES_AND_BUDGETS,
        but_not: OTHER_SENSES,
    },
    Profile {
        name: "plain without fentry",
        what: "all drivers, and what `no fentry` is",
        prepare: || Ok(()),
        build: Build::Plain,
        forbidden: WITHOUT_FENTRY,
        has_v2_cgroups: true,
        tests: SENSES,
        but_not: OTHER_SENSES,
    },
    Profile {
        name: "plain without send tracepoint",
        what: "all drivers, and what `no send tracepoint` is",
        prepare: || Ok(()),
        build: Build::Plain,
        forbidden: WITHOUT_SEND_TRACEPOINT,
        has_v2_cgroups: true,
        tests: SENSES,
        but_not: OTHER_SENSES,
    },
];

/// Skips that are right before a kernel; any other skip in a virtual machine has failed.
pub(super) const MAY_SKIP: &[(&str, (u32, u32))] = &[];

/// Names the profile for the tests.
pub(super) const PROFILE: &str = "TRACER_TEST_PROFILE";
/// Words that every `tracer run` of the tests gets.
pub(super) const OPTIONS: &str = "TRACER_TEST_OPTIONS";

/// In a virtual machine, the profile.
pub fn profile() -> Option<&'static Profile> {
    let name = std::env::var(PROFILE).ok()?;
    PROFILES.iter().find(|profile| profile.name == name)
}

/// How long something may take that takes so long at most on a real processor.
pub fn patience(usually: Duration) -> Duration {
    const SLOWER: u32 = 8;
    if profile().is_some() { usually * SLOWER } else { usually }
}

/// More options for each `tracer run` of the tests.
pub fn tracer_options() -> Vec<String> {
    let words = std::env::var(OPTIONS).unwrap_or_default();
    words.split_whitespace().map(str::to_owned).collect()
}

/// Ways to attach that those options forbid.
pub fn forbidden_ways() -> Vec<String> {
    let options = tracer_options();
    let ways = options.iter().filter_map(|option| option.strip_prefix("--debug-forbid="));
    ways.map(str::to_owned).collect()
}

/// Whether a test is to run here.
pub fn is_selected(test: &str) -> bool {
    let begins = |list: &[&str]| list.iter().any(|name| test.starts_with(name));
    match profile() {
        Some(profile) => begins(profile.tests) && !begins(profile.but_not),
        None => !begins(ONLY_IN_MACHINES),
    }
}
