//! What is to be loaded and attached.

use std::{fs::File, path::PathBuf, sync::Arc};

use super::btf::BTF_PATH;

/// What a test can ask for.
#[derive(Clone, Debug, Default)]
pub struct Debug {
    /// Lose every n-th record of a ring, by ring.
    pub lose_process_every: u32,
    pub lose_argv_every: u32,
    pub lose_net_every: u32,
    pub lose_attempt_every: u32,
    pub lose_names_every: u32,
    pub lose_resolver_every: u32,
    pub lose_tls_every: u32,
    /// Bytes of each ring of executable mappings; a power of two and a multiple of the page size.
    pub maps_bytes: Option<u32>,
    /// Attach everything but this program.
    pub silence: Option<String>,
    /// Entries of maps, by name.
    pub map_entries: Vec<(String, u32)>,
    /// Ways to attach ([`Attach::way`]) that are not to be used where there are others.
    pub forbid: Vec<String>,
}

/// A C library.
#[derive(Clone, Debug)]
pub struct Library {
    pub path: PathBuf,
    /// The file that was looked at: one of a process that ends meanwhile has no path any more.
    pub file: Arc<File>,
    /// Where in the file getaddrinfo begins.
    pub getaddrinfo_bytes: u64,
}

#[derive(Clone, Debug)]
pub struct Options {
    /// The kernel's BTF.
    pub btf: PathBuf,
    /// Bytes of every ring, a power of two and a multiple of the page size, instead of what each has
    /// by itself.
    pub ring_bytes: Option<u32>,
    /// Watch failed execs, whatever that costs other processes.
    pub attempts: bool,
    /// Watch the C library's resolver, which costs other processes that call it.
    pub resolver: bool,
    /// Watch TLS libraries, which costs other processes that use them.
    pub http: bool,
    /// The C libraries there are.
    pub libraries: Vec<Library>,
    /// Watch what reaches processes outside the tree.
    pub hand_offs: bool,
    /// Watch who is taken control of as a debugger does, whatever that costs other processes.
    pub debuggers: bool,
    /// Kill what [`Attached::forbid`] names.
    pub enforce: bool,
    /// Processes that run already are to be found.
    pub find: bool,
    /// Whoever joins the cgroup joins the tree.
    pub follow_cgroup: bool,
    pub debug: Debug,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            btf: BTF_PATH.into(),
            ring_bytes: None,
            attempts: false,
            resolver: false,
            http: false,
            libraries: Vec::new(),
            hand_offs: false,
            debuggers: false,
            enforce: false,
            find: false,
            follow_cgroup: false,
            debug: Debug::default(),
        }
    }
}

impl Options {
    /// Bytes of the ring of executable mappings that each CPU gets.
    pub fn maps_ring_bytes(&self) -> usize {
        if let Some(bytes) = self.debug.maps_bytes {
            return bytes as usize;
        }
        // About 20,000 mappings a CPU; less where there are many CPUs.
        const ALL_BYTES: usize = 32 * 1024 * 1024;
        const EACH_BYTES: std::ops::RangeInclusive<usize> = 256 * 1024..=4 * 1024 * 1024;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let each = (ALL_BYTES / cpus).clamp(*EACH_BYTES.start(), *EACH_BYTES.end());
        // Rounded down to a power of two, as the kernel wants it.
        1 << each.ilog2()
    }
}
