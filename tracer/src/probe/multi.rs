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
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
};

use aya::{Ebpf, maps::Map};
use aya_obj::{Function, Object};

use super::{
    attached::Breakpoints,
    raw::{self, LinkPlaces, ProgramLoad, TypesLoad},
};

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
        let programs = Programs(names.iter().map(load).collect::<Result<_, String>>()?);
        programs.can_be_attached()?;
        Ok(programs)
    }

    /// Kernels before 6.6 load these programs, since they do not look at what they are to be attached to, and
    /// attach none. Those that can say EBADF of what is no regular file, before anything else is looked
    /// at (bpf_uprobe_multi_link_attach, kernel/trace/bpf_trace.c).
    fn can_be_attached(&self) -> Result<(), String> {
        let Some(program) = self.0.values().next() else { return Ok(()) };
        let nowhere = Breakpoints { offsets: &[0], cookie: 0, at_return: false, together: true };
        match attach_at(program.as_fd(), c"/", &nowhere) {
            Ok(_) => Err("the kernel attaches a program to a folder".into()),
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(()),
            Err(error) => Err(format!("this kernel has no links of several places: {error}")),
        }
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
    attach_at(program, &path, places)
}

fn attach_at(
    program: BorrowedFd<'_>,
    path: &CStr,
    places: &Breakpoints<'_>,
) -> io::Result<OwnedFd> {
    let cookies = vec![places.cookie; places.offsets.len()];
    let attr = LinkPlaces {
        program: program.as_raw_fd().cast_unsigned(),
        attach_type: BPF_TRACE_UPROBE_MULTI,
        path: path.as_ptr() as u64,
        offsets: places.offsets.as_ptr() as u64,
        cookies: cookies.as_ptr() as u64,
        count: u32::try_from(places.offsets.len()).map_err(io::Error::other)?,
        multi_flags: if places.at_return { BPF_F_UPROBE_MULTI_RETURN } else { 0 },
        ..LinkPlaces::default()
    };
    raw::open(raw::LINK_CREATE, &attr)
}

fn text(error: impl std::error::Error) -> String {
    error.to_string()
}

/// The map that aya made.
fn descriptor(ebpf: &Ebpf, name: &str) -> Result<RawFd, String> {
    let (Map::Array(data)
    | Map::HashMap(data)
    | Map::LruHashMap(data)
    | Map::PerCpuArray(data)
    | Map::RingBuf(data)) = ebpf.map(name).ok_or_else(|| format!("there is no map `{name}`"))?
    else {
        return Err(format!("the map `{name}` is of a kind that is not known here"));
    };
    Ok(data.fd().as_fd().as_raw_fd())
}

fn load_types(types: &[u8]) -> io::Result<OwnedFd> {
    let size = u32::try_from(types.len()).map_err(io::Error::other)?;
    raw::open(
        raw::BTF_LOAD,
        &TypesLoad { types: types.as_ptr() as u64, size, ..TypesLoad::default() },
    )
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
    raw::open(raw::PROG_LOAD, &attr)
}
