//! The eBPF object in the kernel: its maps, and its programs as they are asked for.
//!
//! aya-obj reads and relocates the file, and aya makes the maps. Programs are loaded and attached here: aya 0.14
//! copies all of the kernel's types whenever it loads an object, and once more for programs on functions, which took
//! a third of a start; and it has no links of several breakpoints.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use aya::maps::{Map, MapData};
use aya_obj::{EbpfSectionKind, Function, ProgramSection, generated::bpf_attach_type};

use super::{
    error::{LoadError, refused, unusable},
    guard,
    raw::{self, MapUpdate, ProgramLoad, TypesLoad},
    sensors::Attach,
    threads::at_once,
};

/// Its maps are in the kernel.
pub(super) struct Object {
    maps: BTreeMap<String, Map>,
    programs: BTreeMap<String, Code>,
    license: CString,
    types: Option<OwnedFd>,
}

/// A program, as it is in the object.
struct Code {
    function: Function,
    /// Where in a cgroup it is to be attached, which its section says; 0 for others.
    cgroup_attach: u32,
}

/// What the programs find in their constants, by name.
pub(super) type Globals<'a> = Vec<(&'a str, Vec<u8>)>;

impl Object {
    /// Makes the maps, with so many entries where they are not to have what the object says.
    pub(super) fn load(
        bytes: &[u8],
        globals: &Globals<'_>,
        entries: &HashMap<&str, u32>,
    ) -> Result<Object, LoadError> {
        const MUST_EXIST: bool = true;
        let mut object = aya_obj::Object::parse(bytes).map_err(unusable)?;
        let globals = globals.iter().map(|(name, value)| (*name, (&value[..], MUST_EXIST)));
        object.patch_map_data(globals.collect()).map_err(unusable)?;
        let types = match aya::features().btf() {
            Some(features) => object.fixup_and_sanitize_btf(features).map_err(unusable)?,
            None => None,
        };
        let types = types.map(|types| load_types(&types.to_bytes())).transpose();
        let types = types.map_err(unusable)?;
        let mut maps: Vec<(String, aya_obj::Map)> = object.maps.drain().collect();
        for (name, map) in &mut maps {
            if let Some(entries) = entries.get(&**name) {
                map.set_max_entries(*entries);
            }
        }
        // The rings, which the kernel fills with zeros, first.
        maps.sort_by_key(|(_, map)| Reverse(map.max_entries()));
        let types_of_map = types.as_ref().map(|types| types.as_fd());
        let made = at_once(&maps, |(name, map)| make_map(name, map, types_of_map));
        let made = made.into_iter().collect::<Result<Vec<Map>, LoadError>>()?;
        let sections: HashSet<usize> =
            object.functions.keys().map(|(section, _)| *section).collect();
        let descriptors = maps
            .iter()
            .zip(&made)
            .map(|((name, map), made)| Ok((&**name, data_of(made)?.fd().as_fd().as_raw_fd(), map)));
        let descriptors = descriptors.collect::<Result<Vec<_>, LoadError>>()?;
        object.relocate_maps(descriptors.into_iter(), &sections).map_err(unusable)?;
        object.relocate_calls(&sections).map_err(unusable)?;
        object.sanitize_functions(aya::features());
        let programs = object.programs.drain().map(|(name, program)| {
            let function = object.functions.get(&program.function_key());
            let function = function.ok_or_else(|| no_program(&name))?.clone();
            Ok((name, Code { function, cgroup_attach: cgroup_attach(&program.section) }))
        });
        Ok(Object {
            programs: programs.collect::<Result<_, LoadError>>()?,
            maps: maps.into_iter().map(|(name, _)| name).zip(made).collect(),
            license: object.license,
            types,
        })
    }

    pub(super) fn map(&self, name: &str) -> Result<&Map, LoadError> {
        self.maps.get(name).ok_or_else(|| no_map(name))
    }

    pub(super) fn map_mut(&mut self, name: &str) -> Result<&mut Map, LoadError> {
        self.maps.get_mut(name).ok_or_else(|| no_map(name))
    }

    /// Can be taken once.
    pub(super) fn take_map(&mut self, name: &str) -> Result<Map, LoadError> {
        self.maps.remove(name).ok_or_else(|| no_map(name))
    }

    pub(super) fn maps(&self) -> impl Iterator<Item = (&str, &Map)> {
        self.maps.iter().map(|(name, map)| (&**name, map))
    }

    /// Has the kernel check a program for where it is to be attached; `function` is the number of the kernel's
    /// function that it is for.
    pub(super) fn check(
        &self,
        name: &'static str,
        attach: Attach,
        function: Option<u32>,
    ) -> Result<OwnedFd, LoadError> {
        let code = self.programs.get(name).ok_or_else(|| no_program(name))?;
        let loaded = self.load_program(name, code, attach, function, &mut []);
        loaded.map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM) => refused(name, &error),
            _ => self.explain(name, code, attach, function),
        })
    }

    /// Once more, for the verifier's own words.
    fn explain(
        &self,
        name: &'static str,
        code: &Code,
        attach: Attach,
        function: Option<u32>,
    ) -> LoadError {
        // The most that Linux 6.1 takes.
        const LOG_BYTES: usize = (1 << 24) - 1;
        let mut log = vec![0; LOG_BYTES];
        match self.load_program(name, code, attach, function, &mut log) {
            Ok(_) => {
                LoadError::Object(format!("the kernel refused `{name}` once and then took it"))
            }
            Err(error) => {
                let log = CStr::from_bytes_until_nul(&log).map(CStr::to_string_lossy);
                let words = format!("{error}\n{}", log.as_deref().unwrap_or_default());
                refused(name, &io::Error::new(error.kind(), words))
            }
        }
    }

    fn load_program(
        &self,
        name: &str,
        code: &Code,
        attach: Attach,
        function: Option<u32>,
        log: &mut [u8],
    ) -> io::Result<OwnedFd> {
        let Code { function: code, cgroup_attach } = code;
        let count = |count: usize| u32::try_from(count).map_err(io::Error::other);
        let functions = code.func_info.func_info_bytes();
        // Only the log names lines.
        let lines = if log.is_empty() { Vec::new() } else { code.line_info.line_info_bytes() };
        let (kind, attach_type) = kind(attach);
        let mut attr = ProgramLoad {
            kind,
            instruction_count: count(code.instructions.len())?,
            instructions: code.instructions.as_ptr() as u64,
            license: self.license.as_ptr() as u64,
            attach_type: attach_type.unwrap_or(*cgroup_attach),
            attach_type_id: function.unwrap_or(0),
            ..ProgramLoad::default()
        };
        if !log.is_empty() {
            attr.log_level = 1;
            attr.log_bytes = count(log.len())?;
            attr.log_buffer = log.as_mut_ptr() as u64;
        }
        // The last byte stays zero.
        let room = attr.name.len() - 1;
        attr.name.iter_mut().zip(name.bytes().take(room)).for_each(|(to, from)| *to = from);
        if let Some(types) = &self.types {
            attr.types_fd = types.as_raw_fd().cast_unsigned();
            if code.func_info_rec_size > 0 {
                attr.function_info = functions.as_ptr() as u64;
                attr.function_info_count = count(code.func_info.len())?;
                attr.function_info_size = count(code.func_info_rec_size)?;
            }
            if code.line_info_rec_size > 0 && !lines.is_empty() {
                attr.line_info = lines.as_ptr() as u64;
                attr.line_info_count = count(code.line_info.len())?;
                attr.line_info_size = count(code.line_info_rec_size)?;
            }
        }
        raw::open(raw::PROG_LOAD, &attr)
    }

    /// Where in a cgroup a program is to be attached.
    pub(super) fn cgroup_attach(&self, program: &str) -> Result<u32, LoadError> {
        let code = self.programs.get(program).ok_or_else(|| no_program(program))?;
        Ok(code.cgroup_attach)
    }
}

/// `enum bpf_prog_type` and `enum bpf_attach_type` of include/uapi/linux/bpf.h; no second one where the program's
/// section says it.
fn kind(attach: Attach) -> (u32, Option<u32>) {
    const KPROBE: u32 = 2;
    const TRACEPOINT: u32 = 5;
    const CGROUP_SKB: u32 = 8;
    const CGROUP_SOCK: u32 = 9;
    const RAW_TRACEPOINT: u32 = 17;
    const CGROUP_SOCK_ADDR: u32 = 18;
    const TRACING: u32 = 26;
    match attach {
        Attach::RawTracepoint(_) => (RAW_TRACEPOINT, Some(0)),
        Attach::FunctionExit(_) => (TRACING, Some(raw::TRACE_FEXIT)),
        Attach::SyscallTracepoint(_) => (TRACEPOINT, Some(0)),
        Attach::LibraryCall(_) | Attach::LibraryReturn(_) | Attach::Tls(_) => (KPROBE, Some(0)),
        Attach::TlsTogether(_) => (KPROBE, Some(raw::TRACE_UPROBE_MULTI)),
        Attach::CgroupAddress(_) => (CGROUP_SOCK_ADDR, None),
        Attach::CgroupPacket(_) => (CGROUP_SKB, None),
        Attach::CgroupSocket(_) => (CGROUP_SOCK, None),
    }
}

fn cgroup_attach(section: &ProgramSection) -> u32 {
    let attach_type: bpf_attach_type =
        if let ProgramSection::CgroupSockAddr { attach_type } = section {
            (*attach_type).into()
        } else if let ProgramSection::CgroupSock { attach_type } = section {
            (*attach_type).into()
        } else if let ProgramSection::CgroupSkb { attach_type: Some(attach_type) } = section {
            (*attach_type).into()
        } else {
            return 0;
        };
    attach_type as u32
}

fn make_map(
    name: &str,
    map: &aya_obj::Map,
    types: Option<BorrowedFd<'_>>,
) -> Result<Map, LoadError> {
    let made = MapData::create(map.clone(), name, types).map_err(unusable)?;
    // What the compiler made of globals.
    if !map.data().is_empty() {
        let first = 0_u32;
        let attr = MapUpdate {
            map: made.fd().as_fd().as_raw_fd().cast_unsigned(),
            key: (&raw const first) as u64,
            value: map.data().as_ptr() as u64,
            ..MapUpdate::default()
        };
        raw::call(raw::MAP_UPDATE_ELEM, &attr).map_err(unusable)?;
    }
    if map.section_kind() == EbpfSectionKind::Rodata {
        guard::freeze_map(&made).map_err(unusable)?;
    }
    Map::from_map_data(made).map_err(unusable)
}

fn data_of(map: &Map) -> Result<&MapData, LoadError> {
    let (Map::Array(data)
    | Map::HashMap(data)
    | Map::LruHashMap(data)
    | Map::LpmTrie(data)
    | Map::PerCpuArray(data)
    | Map::RingBuf(data)) = map
    else {
        return Err(LoadError::Object("a map is of a kind that is not known here".into()));
    };
    Ok(data)
}

fn load_types(types: &[u8]) -> io::Result<OwnedFd> {
    let size = u32::try_from(types.len()).map_err(io::Error::other)?;
    raw::open(
        raw::BTF_LOAD,
        &TypesLoad { types: types.as_ptr() as u64, size, ..TypesLoad::default() },
    )
}

fn no_map(name: &str) -> LoadError {
    LoadError::Object(format!("the object has no map `{name}`"))
}

fn no_program(name: &str) -> LoadError {
    LoadError::Object(format!("the object has no program `{name}`"))
}
