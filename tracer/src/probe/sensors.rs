//! The sensors, as rows.

use tracer_ebpf::abi::Kind;

use super::Options;

/// One thing tracer can see, and the ways to see it, best first.
#[derive(Debug)]
pub struct Sensor {
    pub name: &'static str,
    /// What is missing without it.
    pub purpose: &'static str,
    pub wanted: Wanted,
    /// What the canary makes it report, as often as it does: by each program of whichever hook is used.
    pub canary: &'static [Kind],
    pub hooks: &'static [Hook],
}

/// When a sensor is attached. Without those that are always attached, tracer does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Always,
    /// Where the command has a cgroup of its own, which is nearly everywhere.
    WithCgroup,
    /// A policy counts failed execs, or the user asks for them.
    ForAttempts,
    /// A policy judges names of endpoints, or the user asks for the resolver.
    ForNames,
    /// The user asks for calls by HTTP.
    ForCalls,
    /// A policy is to be judged.
    ForHandOffs,
}

impl Sensor {
    pub fn is_wanted(&self, options: &Options) -> bool {
        match self.wanted {
            Wanted::Always | Wanted::WithCgroup => true,
            Wanted::ForAttempts => options.attempts,
            Wanted::ForNames => options.resolver,
            Wanted::ForCalls => options.http,
            Wanted::ForHandOffs => options.hand_offs,
        }
    }

    /// Whether a hook with a tax will do.
    pub(super) fn may_tax(&self, options: &Options) -> bool {
        match self.wanted {
            // It has no other hook: whoever asked for it asked for the tax.
            Wanted::ForNames | Wanted::ForCalls => true,
            Wanted::ForHandOffs => options.debuggers,
            Wanted::Always | Wanted::WithCgroup | Wanted::ForAttempts => options.attempts,
        }
    }
}

/// A way to attach a sensor.
#[derive(Debug)]
pub struct Hook {
    pub probes: &'static [Probe],
    /// First kernel it is known to work on.
    pub since: &'static str,
    /// First kernel that does not have it any more; empty when there is none.
    pub until: &'static str,
    /// What it cannot see, in one sentence; empty when nothing is known.
    pub cannot_see: &'static str,
    /// What it costs processes that are not traced; empty when that is nothing or next to nothing.
    /// A hook with a tax is used only when what it sees, or what costs more, is asked for.
    pub tax: &'static str,
}

/// An eBPF program and where it is attached.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Name of the program.
    pub program: &'static str,
    pub attach: Attach,
}

/// Where a program is attached.
#[derive(Clone, Copy, Debug)]
pub enum Attach {
    RawTracepoint(&'static str),
    /// The end of a kernel function.
    FunctionExit(&'static str),
    /// Of the group `syscalls`.
    SyscallTracepoint(&'static str),
    /// A function of the C libraries, in all processes.
    LibraryCall(&'static str),
    /// Where such a function returns to.
    LibraryReturn(&'static str),
    /// A function of a TLS library, in all processes that have its file: calls and returns.
    Tls(&'static str),
    /// The same by links that have several breakpoints each.
    TlsTogether(&'static str),
    /// An address that a socket of the command's cgroup is given.
    CgroupAddress(&'static str),
    /// Packets of sockets of that cgroup.
    CgroupPacket(&'static str),
    /// A socket made in that cgroup.
    CgroupSocket(&'static str),
}

impl Attach {
    /// The way, without the place.
    pub const fn way(self) -> &'static str {
        match self {
            Attach::RawTracepoint(_) => "raw-tracepoint",
            Attach::FunctionExit(_) => "fexit",
            Attach::SyscallTracepoint(_) => "tracepoint",
            Attach::LibraryCall(_) | Attach::LibraryReturn(_) | Attach::Tls(_) => "uprobe",
            Attach::TlsTogether(_) => "uprobe-multi",
            Attach::CgroupAddress(_) | Attach::CgroupPacket(_) | Attach::CgroupSocket(_) => {
                "cgroup"
            }
        }
    }
}

impl Hook {
    /// By which it can be forbidden: its ways and its programs.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.probes.iter().flat_map(|probe| [probe.attach.way(), probe.program])
    }

    /// Whether its breakpoints are links of several places.
    pub(super) fn is_together(&self) -> bool {
        self.probes.iter().any(|probe| matches!(probe.attach, Attach::TlsTogether(_)))
    }

    pub fn describe(&self) -> String {
        let mut places: Vec<&str> = self
            .probes
            .iter()
            .map(|probe| match probe.attach {
                Attach::RawTracepoint(name)
                | Attach::FunctionExit(name)
                | Attach::SyscallTracepoint(name)
                | Attach::LibraryCall(name)
                | Attach::LibraryReturn(name)
                | Attach::Tls(name)
                | Attach::TlsTogether(name)
                | Attach::CgroupAddress(name)
                | Attach::CgroupPacket(name)
                | Attach::CgroupSocket(name) => name,
            })
            .collect();
        places.dedup();
        let way = match self.probes.first().map(|probe| probe.attach) {
            Some(Attach::RawTracepoint(_)) => "raw tracepoint",
            Some(Attach::FunctionExit(_)) => "fexit",
            Some(Attach::SyscallTracepoint(_)) => "tracepoint syscalls:",
            Some(Attach::LibraryCall(_) | Attach::LibraryReturn(_) | Attach::Tls(_)) => {
                "uprobe and uretprobe"
            }
            Some(Attach::TlsTogether(_)) => "uprobe_multi",
            Some(Attach::CgroupAddress(_) | Attach::CgroupPacket(_) | Attach::CgroupSocket(_)) => {
                "cgroup"
            }
            None => "",
        };
        format!("{way} {}", places.join(", ")).replace(": ", ":")
    }
}

/// Needed for bpf_loop (5.17), tracing programs with every map type (6.1) and stable tracepoint arguments.
pub const MINIMUM_KERNEL: &str = "6.1";

/// Programs that are run on demand, in the context of the process that asks.
pub(super) const UNATTACHED: &[&str] = &["enrol", "identify"];

const fn raw(program: &'static str, name: &'static str) -> Probe {
    Probe { program, attach: Attach::RawTracepoint(name) }
}

const fn exit_of(program: &'static str, name: &'static str) -> Probe {
    Probe { program, attach: Attach::FunctionExit(name) }
}

const fn syscall(program: &'static str, name: &'static str) -> Probe {
    Probe { program, attach: Attach::SyscallTracepoint(name) }
}

const fn address(program: &'static str) -> Probe {
    Probe { program, attach: Attach::CgroupAddress(program) }
}

const fn packet(program: &'static str, name: &'static str) -> Probe {
    Probe { program, attach: Attach::CgroupPacket(name) }
}

const fn tls(program: &'static str, function: &'static str, together: bool) -> Probe {
    let attach = if together { Attach::TlsTogether(function) } else { Attach::Tls(function) };
    Probe { program, attach }
}

const fn tls_probes(together: bool) -> [Probe; 6] {
    [
        tls("tls_write", "SSL_write", together),
        tls("tls_write_ex", "SSL_write_ex", together),
        tls("tls_read", "SSL_read", together),
        tls("tls_read_ex", "SSL_read_ex", together),
        tls("tls_end", "SSL_free", together),
        tls("tls_return", "SSL_free", together),
    ]
}

const TLS_UNSEEN: &str = "other TLS libraries than OpenSSL (Go, rustls, GnuTLS, NSS, Java), and copies of it \
                          whose functions have no names (Bun); a library's calls between the moment it is \
                          mapped and the moment it is found, where that is not before the start; 32-bit \
                          programs; QUIC; bytes that the kernel encrypts from a file; what is behind the \
                          first 256 KiB of a single read or write, where it is not the inside of a body; without \
                          TLS, calls over unix sockets and over connections that the tree did not open itself \
                          (accepted, inherited, passed to it), and behind the first 64 KiB each way";
/// One tracepoint of this group makes the kernel take the slow way into every system call.
const SYSCALL_TAX: &str =
    "every system call of every process on this machine takes longer while tracing runs";
/// A breakpoint in a file is one in every process that has mapped it.
const LIBRARY_TAX: &str = "getaddrinfo takes microseconds longer while tracing runs, in every process \
                           of this machine that has the same file of the C library";
/// As for the C library.
const TLS_TAX: &str = "each call of SSL_read and SSL_write takes microseconds longer while tracing runs, \
                       in every process of this machine that has the same file";
/// Of a socket that was made elsewhere.
const FOREIGN_UNSEEN: &str = "what is sent over them, and such sockets that are only read from";
const LOCAL_UNSEEN: &str = "to whom a datagram goes that is sent by a call which can give it an address (that it is sent so is seen)";
/// A sensor that is no eBPF program.
#[derive(Debug)]
pub struct PlainSensor {
    pub name: &'static str,
    /// What is missing without it.
    pub purpose: &'static str,
    pub hook: &'static str,
    pub cannot_see: &'static str,
}

/// Opens of known copies of forbidden programs, and writes where others pick up work.
pub const FILES: PlainSensor = PlainSensor {
    name: "files",
    purpose: "who opens a forbidden program's files, and who leaves work for others",
    hook: "fanotify marks on inodes",
    cannot_see: "what is done with a file that was opened; copies and modules that were not found \
                 at the start, or came later; files received open from another process, or read \
                 through a file system laid over theirs",
};

/// Executable mappings of the tree.
pub const MAPS: PlainSensor = PlainSensor {
    name: "maps",
    purpose: "which files processes map as code without executing them",
    hook: "inherited perf events, mmap2",
    cannot_see: "code that is copied into memory: just-in-time compilers, and programs that load \
                 others by hand",
};

pub const SENSORS: &[Sensor] = &[
    Sensor {
        name: "fork",
        purpose: "which processes belong to the tree",
        wanted: Wanted::Always,
        canary: &[Kind::Fork],
        hooks: &[Hook {
            probes: &[raw("fork", "sched_process_fork")],
            since: MINIMUM_KERNEL,
            until: "",
            cannot_see: "helpers the kernel itself starts (core_pattern, modprobe)",
            tax: "",
        }],
    },
    Sensor {
        name: "exec",
        purpose: "which programs the tree ran",
        wanted: Wanted::Always,
        canary: &[Kind::Exec],
        hooks: &[Hook {
            probes: &[raw("exec", "sched_process_exec")],
            since: MINIMUM_KERNEL,
            until: "",
            cannot_see: "code that a program loads or interprets by itself",
            tax: "",
        }],
    },
    Sensor {
        name: "exit",
        purpose: "how processes ended and which still run",
        wanted: Wanted::Always,
        // The canary and the child it forks both exit.
        canary: &[Kind::Exit; 2],
        hooks: &[Hook {
            probes: &[raw("exit", "sched_process_exit")],
            since: MINIMUM_KERNEL,
            until: "",
            cannot_see: "",
            tax: "",
        }],
    },
    Sensor {
        name: "connect",
        purpose: "which TCP endpoints the tree called, whether that succeeded, how long it took and how many bytes were moved",
        wanted: Wanted::Always,
        canary: &[Kind::Connect, Kind::ConnectResult],
        hooks: &[Hook {
            probes: &[
                raw("connect", "inet_sock_set_state"),
                raw("sock_state", "inet_sock_set_state"),
            ],
            since: MINIMUM_KERNEL,
            until: "",
            cannot_see: "connections that have no route; those accepted; those inherited or received from another process (see foreign-sends); bytes of connections that are still open when tracing ends",
            tax: "",
        }],
    },
    Sensor {
        name: "datagrams",
        purpose: "where sockets without connections (UDP, QUIC) send to",
        wanted: Wanted::WithCgroup,
        canary: &[Kind::Datagram; 4],
        hooks: &[Hook {
            probes: &[
                address("connect4"),
                address("connect6"),
                address("sendmsg4"),
                address("sendmsg6"),
            ],
            since: MINIMUM_KERNEL,
            until: "",
            cannot_see: "sockets that were made outside the command's cgroup: inherited, received from another process, or of a process that left it; answers to whoever sent first, when nothing is sent back; later processes that use the same socket and destination",
            tax: "",
        }],
    },
    Sensor {
        name: "packets",
        purpose: "first bytes of connections, DNS messages, and how much is exchanged in datagrams",
        wanted: Wanted::WithCgroup,
        canary: &[Kind::Payload],
        hooks: &[Hook {
            probes: &[packet("packet_out", "egress"), packet("packet_in", "ingress")],
            since: MINIMUM_KERNEL,
            until: "",
            cannot_see: "sockets that were made outside the command's cgroup; IPv6 packets with extension headers; first bytes of connections that the tree accepts",
            tax: "",
        }],
    },
    Sensor {
        name: "cgroup-moves",
        purpose: "which processes leave the command's cgroup",
        wanted: Wanted::WithCgroup,
        canary: &[Kind::CgroupMove],
        hooks: &[Hook {
            probes: &[raw("cgroup_move", "cgroup_attach_task")],
            since: MINIMUM_KERNEL,
            until: "",
            cannot_see: "",
            tax: "",
        }],
    },
    Sensor {
        name: "odd-sockets",
        purpose: "which sockets of the internet protocols are neither TCP nor UDP (raw, ICMP, SCTP)",
        wanted: Wanted::WithCgroup,
        canary: &[Kind::OddSocket],
        hooks: &[Hook {
            probes: &[Probe {
                program: "inet_socket",
                attach: Attach::CgroupSocket("sock_create"),
            }],
            since: MINIMUM_KERNEL,
            until: "",
            cannot_see: "what is sent over them; sockets that were made outside the command's cgroup",
            tax: "",
        }],
    },
    Sensor {
        name: "other-sockets",
        purpose: "which sockets are of other families (packet, vsock, XDP, Bluetooth)",
        wanted: Wanted::ForHandOffs,
        canary: &[Kind::OddSocket],
        hooks: &[
            Hook {
                probes: &[exit_of("other_socket", "__sock_create")],
                since: MINIMUM_KERNEL,
                until: "",
                cannot_see: "what is sent over them; sockets that were received from another process",
                tax: "",
            },
            Hook {
                probes: &[raw("other_socket_send", "sock_send_length")],
                since: "6.4",
                until: "",
                cannot_see: "what is sent over them; sockets that only receive, or that send through shared memory (packet rings, XDP)",
                tax: "",
            },
        ],
    },
    Sensor {
        name: "foreign-sends",
        purpose: "which sockets of the internet protocols the tree uses that were made outside the command's cgroup",
        wanted: Wanted::ForHandOffs,
        canary: &[Kind::ForeignSend; 3],
        hooks: &[
            // Where processes can be preempted in the kernel, a program on a function that one process
            // is in is skipped for the next one on that processor. In a tracepoint they cannot be.
            // 6.4 has the tracepoint, but sendfile and splice do not come by it before 6.5.
            Hook {
                probes: &[raw("foreign_send", "sock_send_length")],
                since: "6.5",
                until: "",
                cannot_see: FOREIGN_UNSEEN,
                tax: "",
            },
            Hook {
                probes: &[
                    exit_of("foreign_send_page", "inet_sendpage"),
                    exit_of("foreign_send_v4", "inet_sendmsg"),
                    exit_of("foreign_send_v6", "inet6_sendmsg"),
                ],
                since: MINIMUM_KERNEL,
                until: "6.5",
                cannot_see: FOREIGN_UNSEEN,
                tax: "",
            },
            Hook {
                probes: &[
                    exit_of("foreign_send_v4", "inet_sendmsg"),
                    exit_of("foreign_send_v6", "inet6_sendmsg"),
                ],
                since: "6.5",
                until: "",
                cannot_see: FOREIGN_UNSEEN,
                tax: "",
            },
        ],
    },
    Sensor {
        name: "resolved",
        purpose: "which names processes have the C library resolve, and to which addresses",
        wanted: Wanted::ForNames,
        // It may have another C library than the machine, or none of these. A name that is missing is
        // one source less and never makes a claim hold.
        canary: &[],
        hooks: &[Hook {
            probes: &[
                Probe { program: "resolve_call", attach: Attach::LibraryCall("getaddrinfo") },
                Probe { program: "resolve_return", attach: Attach::LibraryReturn("getaddrinfo") },
            ],
            since: MINIMUM_KERNEL,
            until: "",
            cannot_see: "programs that resolve names by themselves, are linked statically, or have a C \
                         library of their own, as in a container; 32-bit programs; gethostbyname and \
                         other functions than getaddrinfo",
            tax: LIBRARY_TAX,
        }],
    },
    Sensor {
        name: "tls",
        purpose: "what is sent and received by TLS: calls by HTTP",
        wanted: Wanted::ForCalls,
        // It has no TLS library. No claim rests on what is seen here.
        canary: &[],
        hooks: &[
            Hook {
                probes: &tls_probes(true),
                // 6.6 has it, and 6.11 to 6.13 kill at uretprobes.
                since: "6.6",
                until: "",
                cannot_see: TLS_UNSEEN,
                tax: TLS_TAX,
            },
            Hook {
                probes: &tls_probes(false),
                since: MINIMUM_KERNEL,
                until: "",
                cannot_see: TLS_UNSEEN,
                tax: TLS_TAX,
            },
        ],
    },
    Sensor {
        name: "attempts",
        purpose: "which programs the tree tried to run and could not",
        wanted: Wanted::ForAttempts,
        canary: &[Kind::Attempt; 2],
        hooks: &[
            Hook {
                probes: &[
                    exit_of("attempt_execve", "__x64_sys_execve"),
                    exit_of("attempt_execveat", "__x64_sys_execveat"),
                ],
                since: MINIMUM_KERNEL,
                until: "",
                cannot_see: "failed execs of 32-bit callers and of io_uring; names that another thread changes while they fail",
                tax: "",
            },
            Hook {
                probes: &[
                    syscall("attempt_execve_exit", "sys_exit_execve"),
                    syscall("attempt_execveat_exit", "sys_exit_execveat"),
                ],
                since: MINIMUM_KERNEL,
                until: "",
                cannot_see: "failed execs of 32-bit callers; names that another thread changes while they fail",
                tax: SYSCALL_TAX,
            },
        ],
    },
    Sensor {
        name: "local-sends",
        purpose: "to which processes outside the tree something was sent over unix sockets",
        wanted: Wanted::ForHandOffs,
        canary: &[Kind::LocalSend; 3],
        hooks: &[
            // First, and since 6.5, for the same reasons as that of foreign-sends.
            Hook {
                probes: &[raw("local_send", "sock_send_length")],
                since: "6.5",
                until: "",
                cannot_see: LOCAL_UNSEEN,
                tax: "",
            },
            Hook {
                probes: &[
                    exit_of("local_send_page", "unix_stream_sendpage"),
                    exit_of("local_send_stream", "unix_stream_sendmsg"),
                    exit_of("local_send_packet", "unix_dgram_sendmsg"),
                ],
                since: MINIMUM_KERNEL,
                until: "6.5",
                cannot_see: LOCAL_UNSEEN,
                tax: "",
            },
            Hook {
                probes: &[
                    exit_of("local_send_stream", "unix_stream_sendmsg"),
                    exit_of("local_send_packet", "unix_dgram_sendmsg"),
                ],
                since: "6.5",
                until: "",
                cannot_see: LOCAL_UNSEEN,
                tax: "",
            },
        ],
    },
    Sensor {
        name: "intrusions",
        purpose: "which processes outside the tree were taken control of, as a debugger does",
        wanted: Wanted::ForHandOffs,
        canary: &[Kind::Intrusion; 3],
        hooks: &[
            Hook {
                probes: &[exit_of("debugger_access", "security_ptrace_access_check")],
                since: MINIMUM_KERNEL,
                until: "",
                cannot_see: "",
                tax: "",
            },
            Hook {
                probes: &[
                    syscall("ptrace_exit", "sys_exit_ptrace"),
                    syscall("write_memory_exit", "sys_exit_process_vm_writev"),
                    syscall("take_descriptor_exit", "sys_exit_pidfd_getfd"),
                ],
                since: MINIMUM_KERNEL,
                until: "",
                cannot_see: "writes to /proc/PID/mem; 32-bit callers",
                tax: SYSCALL_TAX,
            },
        ],
    },
];
