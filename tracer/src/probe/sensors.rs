//! The sensors, as rows.

/// One thing tracer can see, and the ways to see it, best first.
#[derive(Debug)]
pub struct Sensor {
    pub name: &'static str,
    /// What is missing without it.
    pub purpose: &'static str,
    pub hooks: &'static [Hook],
}

/// A way to attach a sensor.
#[derive(Debug)]
pub struct Hook {
    /// Name of the eBPF program.
    pub program: &'static str,
    pub attach: Attach,
    /// First kernel it is known to work on.
    pub since: &'static str,
    /// What it cannot see, in one sentence; empty when nothing is known.
    pub cannot_see: &'static str,
}

/// Where a program is attached.
#[derive(Clone, Copy, Debug)]
pub enum Attach {
    RawTracepoint(&'static str),
}

impl Attach {
    pub fn describe(self) -> String {
        match self {
            Attach::RawTracepoint(name) => format!("raw tracepoint {name}"),
        }
    }
}

/// Needed for bpf_loop (5.17), tracing programs with every map type (6.1) and stable tracepoint arguments.
pub const MINIMUM_KERNEL: &str = "6.1";

/// Programs that are run on demand, in the context of the process that asks.
pub(super) const UNATTACHED: &[&str] = &["enrol", "identify"];

pub const SENSORS: &[Sensor] = &[
    Sensor {
        name: "fork",
        purpose: "which processes belong to the tree",
        hooks: &[Hook {
            program: "fork",
            attach: Attach::RawTracepoint("sched_process_fork"),
            since: MINIMUM_KERNEL,
            cannot_see: "helpers the kernel itself starts (core_pattern, modprobe)",
        }],
    },
    Sensor {
        name: "exec",
        purpose: "which programs the tree ran",
        hooks: &[Hook {
            program: "exec",
            attach: Attach::RawTracepoint("sched_process_exec"),
            since: MINIMUM_KERNEL,
            cannot_see: "execs that failed; code that a program loads or interprets by itself",
        }],
    },
    Sensor {
        name: "exit",
        purpose: "how processes ended and which still run",
        hooks: &[Hook {
            program: "exit",
            attach: Attach::RawTracepoint("sched_process_exit"),
            since: MINIMUM_KERNEL,
            cannot_see: "",
        }],
    },
    Sensor {
        name: "connect",
        purpose: "which TCP endpoints the tree called",
        hooks: &[Hook {
            program: "connect",
            attach: Attach::RawTracepoint("inet_sock_set_state"),
            since: MINIMUM_KERNEL,
            cannot_see: "UDP, QUIC and unix sockets; connections that have no route; those accepted, inherited or received from another process",
        }],
    },
    Sensor {
        name: "connect-result",
        purpose: "whether connections succeeded, how long they took and how many bytes they moved",
        hooks: &[Hook {
            program: "sock_state",
            attach: Attach::RawTracepoint("inet_sock_set_state"),
            since: MINIMUM_KERNEL,
            cannot_see: "bytes of connections that are still open when tracing ends",
        }],
    },
];
