//! Which files a process tree maps as code, from inherited perf events.
//!
//! A dummy software event with `mmap2` makes the kernel write a record for each executable mapping,
//! and with `comm_exec` one for each new image. It is inherited like the counter of execs, so only
//! the tree pays. An inherited event with a ring must be bound to a CPU: there is one for each.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use rustix::event::epoll;

use super::{Attributes, open, ring::Ring};
use crate::model::{Bytes, Device, FileId};

/// What the kernel said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MapRecord {
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub(crate) t_ns: u64,
    /// Of the process, in the pid namespace of whoever opened the stream.
    pub(crate) pid: u32,
    pub(crate) what: MapEvent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MapEvent {
    /// An exec has given the process a new image, whose files are mapped next.
    NewImage,
    Mapped {
        file: FileId,
        path: Bytes,
    },
    /// The process's first thread has ended.
    Ended,
}

#[derive(Debug)]
pub(crate) struct MapStream {
    rings: Vec<Ring>,
    /// Readable when one of the rings is half full, or has a record.
    ready: OwnedFd,
    /// Records that make no sense.
    damaged: u64,
    /// Those online when the rings were mapped, of which each has one.
    processors: Vec<u32>,
    /// Since then others were seen to be online.
    processors_changed: bool,
}

const PERF_TYPE_SOFTWARE: u32 = 1;
const PERF_COUNT_SW_DUMMY: u64 = 9;
const PERF_SAMPLE_TID: u64 = 1 << 1;
const PERF_SAMPLE_TIME: u64 = 1 << 2;
/// Since 6.0.
const PERF_FORMAT_LOST: u64 = 1 << 4;

const FLAGS: u64 = 1 << 1 // inherit
    | 1 << 8 // mmap
    | 1 << 9 // comm
    | 1 << 13 // task
    | 1 << 14 // watermark
    | 1 << 18 // sample_id_all
    | 1 << 23 // mmap2
    | 1 << 24 // comm_exec
    | 1 << 25; // use_clockid

const PERF_RECORD_COMM: u32 = 3;
const PERF_RECORD_EXIT: u32 = 4;
const PERF_RECORD_MMAP2: u32 = 10;
const PERF_RECORD_MISC_COMM_EXEC: u16 = 1 << 13;

impl MapStream {
    /// Watches the calling thread's descendants to be. `bytes` is a power of two for the ring of each
    /// CPU; `at_once` has each record wake whoever waits.
    pub(crate) fn open(bytes: usize, at_once: bool) -> io::Result<MapStream> {
        let wakeup = if at_once { 1 } else { u32::try_from(bytes / 2).unwrap_or(u32::MAX) };
        let attributes = Attributes {
            kind: PERF_TYPE_SOFTWARE,
            config: PERF_COUNT_SW_DUMMY,
            sample_type: PERF_SAMPLE_TID | PERF_SAMPLE_TIME,
            read_format: PERF_FORMAT_LOST,
            flags: FLAGS,
            wakeup,
            clock: libc::CLOCK_BOOTTIME,
            ..Attributes::default()
        };
        let events = online_processors()?
            .into_iter()
            .map(|cpu| open(&attributes, 0, i32::try_from(cpu).map_err(io::Error::other)?));
        MapStream::map(events.collect::<io::Result<_>>()?, bytes)
    }

    /// Its events, one for each CPU, with which somebody else can [map](MapStream::map) the same rings.
    pub(crate) fn events(&self) -> io::Result<Vec<OwnedFd>> {
        self.rings.iter().map(|ring| ring.as_fd().try_clone_to_owned()).collect()
    }

    /// Maps the rings of such events. Who reads them is one alone.
    pub(crate) fn map(events: Vec<OwnedFd>, bytes: usize) -> io::Result<MapStream> {
        let ready = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let processors = online_processors()?;
        let mut rings = Vec::new();
        for event in events {
            let data = epoll::EventData::new_u64(0);
            epoll::add(&ready, &event, data, epoll::EventFlags::IN)?;
            rings.push(Ring::map(event, bytes)?);
        }
        let processors_changed = processors.len() != rings.len();
        Ok(MapStream { rings, ready, damaged: 0, processors, processors_changed })
    }

    /// To wait on.
    pub(crate) fn ready(&self) -> io::Result<OwnedFd> {
        self.ready.try_clone()
    }

    /// Hands on what is in the rings, CPU by CPU.
    pub(crate) fn drain(&mut self, sink: &mut dyn FnMut(MapRecord)) {
        let mut damaged = 0;
        for ring in &mut self.rings {
            let sound = ring.drain(&mut |kind, misc, body| match decode(kind, misc, body) {
                Ok(Some(record)) => sink(record),
                Ok(None) => {}
                Err(Damaged) => damaged += 1,
            });
            damaged += u64::from(!sound);
        }
        self.damaged += damaged;
    }

    /// To be called now and then. A processor that comes online has no event, and one that comes back has none any
    /// more.
    pub(crate) fn check(&mut self) {
        self.processors_changed |= online_processors().is_ok_and(|now| now != self.processors);
    }

    /// Records that the kernel had no room for, and those that made no sense.
    pub(crate) fn lost(&self) -> io::Result<u64> {
        if self.processors_changed || online_processors()? != self.processors {
            return Err(io::Error::other(
                "a processor came online or went offline, and what ran there was not seen",
            ));
        }
        let mut sum = self.damaged;
        for ring in &self.rings {
            // struct read_format { u64 value; u64 lost; }
            let mut read = [0u64; 2];
            // SAFETY: 16 bytes of room, and any bytes are a value.
            let got = unsafe {
                libc::read(ring.as_fd().as_raw_fd(), read.as_mut_ptr().cast(), size_of_val(&read))
            };
            if got != size_of_val(&read).cast_signed() {
                return Err(io::Error::last_os_error());
            }
            sum += read[1];
        }
        Ok(sum)
    }
}

/// `0-3,5` is 0, 1, 2, 3 and 5.
fn online_processors() -> io::Result<Vec<u32>> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online")?;
    let parse = |text: &str| text.parse::<u32>().map_err(io::Error::other);
    let mut processors = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        processors.extend(parse(first)?..=parse(last)?);
    }
    Ok(processors)
}

#[derive(Debug, PartialEq, Eq)]
struct Damaged;

/// Takes integers off the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn u32(&mut self) -> Result<u32, Damaged> {
        let (value, rest) = self.0.split_first_chunk().ok_or(Damaged)?;
        self.0 = rest;
        Ok(u32::from_ne_bytes(*value))
    }

    fn u64(&mut self) -> Result<u64, Damaged> {
        let (value, rest) = self.0.split_first_chunk().ok_or(Damaged)?;
        self.0 = rest;
        Ok(u64::from_ne_bytes(*value))
    }
}

/// The time at the end of each record, behind pid and tid, because of `sample_id_all`.
fn time_of(body: &[u8]) -> Result<u64, Damaged> {
    let time: &[u8; 8] = body.last_chunk().ok_or(Damaged)?;
    Ok(u64::from_ne_bytes(*time))
}

/// `None` for a record that says nothing of interest.
fn decode(kind: u32, misc: u16, body: &[u8]) -> Result<Option<MapRecord>, Damaged> {
    const SAMPLE_ID_BYTES: usize = 16;
    let mut reader = Reader(body);
    let what = match kind {
        PERF_RECORD_COMM if misc & PERF_RECORD_MISC_COMM_EXEC != 0 => {
            let pid = reader.u32()?;
            (pid, MapEvent::NewImage)
        }
        PERF_RECORD_EXIT => {
            // pid, parent, tid: the first thread has the process's id.
            let (pid, _parent, tid) = (reader.u32()?, reader.u32()?, reader.u32()?);
            if pid != tid {
                return Ok(None);
            }
            (pid, MapEvent::Ended)
        }
        PERF_RECORD_MMAP2 => {
            let (pid, _tid) = (reader.u32()?, reader.u32()?);
            let (_address, _length, _offset) = (reader.u64()?, reader.u64()?, reader.u64()?);
            let (major, minor) = (reader.u32()?, reader.u32()?);
            let (inode, _generation) = (reader.u64()?, reader.u64()?);
            let (_protection, _flags) = (reader.u32()?, reader.u32()?);
            let name = reader.0.len().checked_sub(SAMPLE_ID_BYTES).ok_or(Damaged)?;
            let name = &reader.0[..name];
            let end = name.iter().position(|byte| *byte == 0).ok_or(Damaged)?;
            let path = Bytes::from(&name[..end]);
            let device = Device::new(major, minor);
            // Of memory that has no file. What memfd_create makes is a file: a dynamic loader takes it as any other.
            if inode == 0 {
                return Ok(None);
            }
            (pid, MapEvent::Mapped { file: FileId { device, inode }, path })
        }
        _ => return Ok(None),
    };
    let (pid, what) = what;
    Ok(Some(MapRecord { t_ns: time_of(body)?, pid, what }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(path: &[u8], inode: u64) -> Vec<u8> {
        let mut body = Vec::new();
        for word in [7u32, 8] {
            body.extend(word.to_ne_bytes());
        }
        for long in [1u64, 2, 3] {
            body.extend(long.to_ne_bytes());
        }
        for word in [8u32, 1] {
            body.extend(word.to_ne_bytes());
        }
        for long in [inode, 0] {
            body.extend(long.to_ne_bytes());
        }
        for word in [5u32, 2] {
            body.extend(word.to_ne_bytes());
        }
        body.extend(path);
        body.resize(body.len().next_multiple_of(8), 0);
        for word in [7u32, 8] {
            body.extend(word.to_ne_bytes());
        }
        body.extend(99u64.to_ne_bytes());
        body
    }

    fn decoded(body: &[u8]) -> Result<Option<MapRecord>, Damaged> {
        decode(PERF_RECORD_MMAP2, 0, body)
    }

    #[test]
    fn mappings_of_files_are_told_from_memory() {
        let file = FileId { device: Device::new(8, 1), inode: 42 };
        let what = MapEvent::Mapped { file, path: "/lib/x.so".into() };
        let expected = MapRecord { t_ns: 99, pid: 7, what };
        assert_eq!(decoded(&mapping(b"/lib/x.so\0", 42)), Ok(Some(expected)));
        for path in [b"//anon\0".as_slice(), b"[vdso]\0"] {
            assert_eq!(decoded(&mapping(path, 0)), Ok(None));
        }
        // What memfd_create makes is a file, whatever it is called.
        assert!(matches!(decoded(&mapping(b"/memfd:x (deleted)\0", 5)), Ok(Some(_))));
    }

    #[test]
    fn every_cut_of_a_record_is_refused() {
        let whole = mapping(b"/lib/x.so\0", 42);
        for len in 0..72 {
            assert_eq!(decoded(&whole[..len]), Err(Damaged), "{len} bytes");
        }
        let other = decode;
        assert_eq!(other(PERF_RECORD_COMM, PERF_RECORD_MISC_COMM_EXEC, &[]), Err(Damaged));
        assert_eq!(other(PERF_RECORD_EXIT, 0, &[0; 11]), Err(Damaged));
        assert_eq!(other(PERF_RECORD_COMM, 0, &[]), Ok(None));
    }
}
