//! Breakpoints in a file as links of several places each (`uprobe_multi`, Linux 6.6).
//!
//! aya makes a perf event of each breakpoint, and the kernel takes those away one after the other, each
//! with several grace periods, while a lock is held. Links go side by side, one grace period for all places
//! of each; and less is done at each stop. aya 0.14 loads no programs for them, so here they are loaded
//! once more, from the same object and with the maps that aya made of it.

use std::{
    collections::{BTreeMap, HashSet},
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use aya::{Ebpf, maps::Map};
use aya_obj::{Function, Object};

use super::attached::Breakpoints;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_BTF_LOAD: libc::c_long = 18;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_KPROBE: u32 = 2;
const BPF_TRACE_UPROBE_MULTI: u32 = 48;
const BPF_F_UPROBE_MULTI_RETURN: u32 = 1;

/// Programs that can be attached so, by name.
#[derive(Debug)]
pub(super) struct Programs(BTreeMap<&'static str, OwnedFd>);

impl Programs {
    /// # Errors
    /// Why the object or the kernel does not have them.
    pub(super) fn load(
        object: &[u8],
        ebpf: &Ebpf,
        names: &[&'static str],
    ) -> Result<Programs, String> {
        let mut object = Object::parse(object).map_err(text)?;
        let types = match aya::features().btf() {
            Some(features) => object.fixup_and_sanitize_btf(features).map_err(text)?,
            None => None,
        };
        let types = types.map(|types| load_types(&types.to_bytes())).transpose().map_err(text)?;
        let sections: HashSet<usize> =
            object.functions.keys().map(|(section, _)| *section).collect();
        let maps = std::mem::take(&mut object.maps);
        let descriptors =
            maps.iter().map(|(name, map)| Ok((&**name, descriptor(ebpf, name)?, map)));
        let descriptors = descriptors.collect::<Result<Vec<_>, String>>()?;
        object.relocate_maps(descriptors.into_iter(), &sections).map_err(text)?;
        object.relocate_calls(&sections).map_err(text)?;
        object.sanitize_functions(aya::features());
        let load = |name: &&'static str| {
            let program = object.programs.get(*name).ok_or("the object lacks a program")?;
            let function = object.functions.get(&program.function_key());
            let function = function.ok_or("the object lacks a function")?;
            let loaded = load(name, function, &object.license, types.as_ref());
            Ok((*name, loaded.map_err(|error| format!("{name}: {error}"))?))
        };
        Ok(Programs(names.iter().map(load).collect::<Result<_, String>>()?))
    }

    pub(super) fn descriptor(&self, program: &str) -> Option<BorrowedFd<'_>> {
        self.0.get(program).map(|fd| fd.as_fd())
    }
}

/// Runs a program at places in a file, in every process that has it mapped, until the descriptor is closed.
pub(crate) fn attach_together(
    program: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    places: &Breakpoints<'_>,
) -> io::Result<OwnedFd> {
    // The file itself, whatever becomes of its name.
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let cookies = vec![places.cookie; places.offsets.len()];
    let attr = LinkCreate {
        program: program.as_raw_fd().cast_unsigned(),
        attach_type: BPF_TRACE_UPROBE_MULTI,
        path: path.as_ptr() as u64,
        offsets: places.offsets.as_ptr() as u64,
        cookies: cookies.as_ptr() as u64,
        count: u32::try_from(places.offsets.len()).map_err(io::Error::other)?,
        multi_flags: if places.at_return { BPF_F_UPROBE_MULTI_RETURN } else { 0 },
        ..LinkCreate::default()
    };
    bpf(BPF_LINK_CREATE, &attr)
}

fn text(error: impl std::error::Error) -> String {
    error.to_string()
}

/// The map that aya made.
fn descriptor(ebpf: &Ebpf, name: &str) -> Result<RawFd, String> {
    let map = ebpf.map(name);
    let Some(Map::Array(data) | Map::HashMap(data) | Map::PerCpuArray(data) | Map::RingBuf(data)) =
        map
    else {
        return Err(format!("there is no map `{name}`"));
    };
    Ok(data.fd().as_fd().as_raw_fd())
}

/// The first fields of `union bpf_attr`, of each command. [`bpf`] relies on their being plain.
trait Attributes {}

#[repr(C)]
#[derive(Default)]
struct ProgramLoad {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log: [u32; 2],
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
    types_fd: u32,
    function_info_size: u32,
    function_info: u64,
    function_info_count: u32,
    line_info_size: u32,
}

#[repr(C)]
#[derive(Default)]
struct TypesLoad {
    types: u64,
    log_buffer: u64,
    size: u32,
    log_size: u32,
    log_level: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    path: u64,
    offsets: u64,
    reference_counters: u64,
    cookies: u64,
    count: u32,
    multi_flags: u32,
    process: u32,
    padding: u32,
}

impl Attributes for ProgramLoad {}
impl Attributes for TypesLoad {}
impl Attributes for LinkCreate {}

/// A command that makes a descriptor.
fn bpf<A: Attributes>(command: libc::c_long, attr: &A) -> io::Result<OwnedFd> {
    // SAFETY: `attr` has the layout that the command reads and the size that is given; what it points
    // to is only read, and each caller keeps it until this returns.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attr, size_of::<A>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just made this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn load_types(types: &[u8]) -> io::Result<OwnedFd> {
    let size = u32::try_from(types.len()).map_err(io::Error::other)?;
    bpf(BPF_BTF_LOAD, &TypesLoad { types: types.as_ptr() as u64, size, ..TypesLoad::default() })
}

fn load(
    name: &str,
    function: &Function,
    license: &CStr,
    types: Option<&OwnedFd>,
) -> io::Result<OwnedFd> {
    let count = |count: usize| u32::try_from(count).map_err(io::Error::other);
    let functions = function.func_info.func_info_bytes();
    let mut attr = ProgramLoad {
        kind: BPF_PROG_TYPE_KPROBE,
        instruction_count: count(function.instructions.len())?,
        instructions: function.instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        attach_type: BPF_TRACE_UPROBE_MULTI,
        ..ProgramLoad::default()
    };
    // The last byte stays zero.
    let room = attr.name.len() - 1;
    attr.name.iter_mut().zip(name.bytes().take(room)).for_each(|(to, from)| *to = from);
    if let Some(types) = types.filter(|_| function.func_info_rec_size > 0) {
        attr.types_fd = types.as_raw_fd().cast_unsigned();
        attr.function_info = functions.as_ptr() as u64;
        attr.function_info_count = count(function.func_info.len())?;
        attr.function_info_size = count(function.func_info_rec_size)?;
    }
    bpf(BPF_PROG_LOAD, &attr)
}
