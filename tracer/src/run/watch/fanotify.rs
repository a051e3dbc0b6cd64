//! fanotify(7): the kernel reports who opens or changes marked files. A mark costs nothing on any
//! other file.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{model::Bytes, run::broker::Broker};

/// To open a file, also by the kernel for an exec.
pub(super) const OPEN: u64 = libc::FAN_OPEN | libc::FAN_OPEN_EXEC;
/// To open a file of a folder. Folders themselves make no event.
pub(super) const OPEN_CHILD: u64 = OPEN | libc::FAN_EVENT_ON_CHILD;
/// To write a file, or to put one into a folder.
pub(super) const CHANGE: u64 = libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE;
pub(super) const CHANGE_IN: u64 =
    CHANGE | libc::FAN_CREATE | libc::FAN_MOVED_TO | libc::FAN_EVENT_ON_CHILD | libc::FAN_ONDIR;

/// To open a file or to write it.
pub(super) const USE: u64 = libc::FAN_OPEN | libc::FAN_CLOSE_WRITE;
/// The same for files of a folder.
pub(super) const USE_CHILD: u64 = USE | libc::FAN_EVENT_ON_CHILD;
/// To make something in a folder, or to move it there.
pub(super) const APPEAR_IN: u64 = libc::FAN_CREATE | libc::FAN_MOVED_TO | libc::FAN_ONDIR;

/// An event queue and its marks.
#[derive(Debug)]
pub(super) struct Fanotify {
    queue: File,
    /// Who marks files when tracer may not do so itself any more.
    broker: Option<Broker>,
}

#[derive(Debug)]
pub(super) struct RawEvent {
    pub(super) mask: u64,
    /// Thread group, in the reader's pid namespace; 0 when it is not in it.
    pub(super) pid: u32,
    /// What was opened; only of [`Fanotify::of_files`].
    pub(super) file: Option<File>,
    /// The folder and the name in it; only of [`Fanotify::of_names`].
    pub(super) entry: Option<(Handle, Bytes)>,
}

/// What a file system calls a file, see name_to_handle_at(2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Handle {
    kind: i32,
    bytes: Vec<u8>,
}

/// What reading the queue gave besides events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) overflows: u64,
    /// Events that could not be read.
    pub(super) lost: u64,
}

impl Fanotify {
    /// Events carry the file itself, opened.
    pub(super) fn of_files() -> io::Result<Fanotify> {
        Fanotify::new(0)
    }

    /// Events carry the folder's handle and a name, and come for names that are made or moved, too
    /// (5.9+).
    pub(super) fn of_names() -> io::Result<Fanotify> {
        Fanotify::new(libc::FAN_REPORT_DFID_NAME)
    }

    fn new(flags: libc::c_uint) -> io::Result<Fanotify> {
        let flags = flags | libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
        let opened = libc::O_RDONLY | libc::O_LARGEFILE | libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: no memory is involved.
        let queue = unsafe { libc::fanotify_init(flags, opened.cast_unsigned()) };
        if queue < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just returned this descriptor and nobody else has it.
        Ok(Fanotify { queue: unsafe { File::from_raw_fd(queue) }, broker: None })
    }

    /// Marks the inode behind a descriptor, which may be one of `O_PATH`.
    pub(super) fn mark(&self, file: &File, mask: u64) -> io::Result<()> {
        match &self.broker {
            Some(broker) => broker.mark(self.queue.as_fd(), file.as_fd(), mask),
            None => mark(self.queue.as_fd(), file.as_fd(), mask),
        }
    }

    pub(super) fn mark_through(&mut self, broker: &Broker) {
        self.broker = Some(broker.clone());
    }

    /// Hands on everything that is queued.
    pub(super) fn read(&mut self, sink: &mut dyn FnMut(RawEvent)) -> Damage {
        /// Each event can hold a descriptor: few enough at a time to stay below any usual limit.
        const BUFFER_BYTES: usize = 4096;
        /// Failed reads in a row; each loses the event it was to give.
        const FAILURES_MAX: u64 = 100_000;
        let mut damage = Damage::default();
        let mut buffer = [0; BUFFER_BYTES];
        while damage.lost < FAILURES_MAX {
            match self.queue.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => parse(&buffer[..len], &mut damage, sink),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => damage.lost += 1,
            }
        }
        damage
    }
}

/// The kernel asks whether the caller may read the file.
pub(in crate::run) fn mark(
    queue: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    mask: u64,
) -> io::Result<()> {
    let this = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    // SAFETY: the path is NUL-terminated.
    let result = unsafe {
        libc::fanotify_mark(
            queue.as_raw_fd(),
            libc::FAN_MARK_ADD,
            mask,
            libc::AT_FDCWD,
            this.as_ptr(),
        )
    };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl AsFd for Fanotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

/// Integers of the kernel's structs, at their places; none past the end.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// A buffer of `struct fanotify_event_metadata`, each with its information records.
fn parse(mut buffer: &[u8], damage: &mut Damage, sink: &mut dyn FnMut(RawEvent)) {
    while !buffer.is_empty() {
        let Some((event, len)) = parse_one(buffer) else {
            damage.lost += 1;
            return;
        };
        if event.mask & libc::FAN_Q_OVERFLOW != 0 {
            damage.overflows += 1;
        } else {
            sink(event);
        }
        buffer = &buffer[len..];
    }
}

fn parse_one(buffer: &[u8]) -> Option<(RawEvent, usize)> {
    // event_len u32, vers u8, reserved u8, metadata_len u16, mask u64, fd i32, pid i32
    let len = usize::try_from(u32::from_ne_bytes(number(buffer, 0)?)).ok()?;
    let header_len = usize::from(u16::from_ne_bytes(number(buffer, 6)?));
    let mask = u64::from_ne_bytes(number(buffer, 8)?);
    let fd = i32::from_ne_bytes(number(buffer, 16)?);
    let pid = i32::from_ne_bytes(number(buffer, 20)?);
    // SAFETY: the kernel opened this descriptor for this event, which is parsed once.
    let file = (fd >= 0).then(|| unsafe { File::from_raw_fd(fd) });
    let information = buffer.get(header_len..len).filter(|_| len > 0)?;
    let event =
        RawEvent { mask, pid: u32::try_from(pid).unwrap_or(0), file, entry: entry(information) };
    Some((event, len))
}

/// The folder and the name, of the records behind an event.
fn entry(mut records: &[u8]) -> Option<(Handle, Bytes)> {
    // info_type u8, pad u8, len u16, fsid 8 bytes, handle_bytes u32, handle_type i32, handle, name
    const HANDLE_AT: usize = 20;
    while !records.is_empty() {
        let len = usize::from(u16::from_ne_bytes(number(records, 2)?));
        let record = records.get(..len).filter(|_| len > 0)?;
        if matches!(record[0], libc::FAN_EVENT_INFO_TYPE_DFID_NAME | libc::FAN_EVENT_INFO_TYPE_DFID)
        {
            let handle_len = usize::try_from(u32::from_ne_bytes(number(record, 12)?)).ok()?;
            let kind = i32::from_ne_bytes(number(record, 16)?);
            let bytes = record.get(HANDLE_AT..HANDLE_AT.checked_add(handle_len)?)?.to_vec();
            let name = record[HANDLE_AT + handle_len..].split(|byte| *byte == 0).next()?;
            return Some((Handle { kind, bytes }, Bytes::from(name)));
        }
        records = &records[len..];
    }
    None
}

impl Handle {
    /// Of the folder or file behind a descriptor, which may be one of `O_PATH`.
    pub(super) fn of(file: &File) -> io::Result<Handle> {
        // From 6.6 on file systems that cannot open by handle can still name by one.
        const AT_HANDLE_FID: libc::c_int = 0x200;
        Handle::with_flags(file, 0).or_else(|_| Handle::with_flags(file, AT_HANDLE_FID))
    }

    fn with_flags(file: &File, flags: libc::c_int) -> io::Result<Handle> {
        const BYTES_MAX: usize = 128; // MAX_HANDLE_SZ
        /// `struct file_handle` with room for any handle.
        #[repr(C)]
        struct Room {
            len: u32,
            kind: i32,
            bytes: [u8; BYTES_MAX],
        }
        let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        let mut room = Room { len: BYTES_MAX as u32, kind: 0, bytes: [0; BYTES_MAX] };
        let mut mount = 0;
        // SAFETY: the path is NUL-terminated, and `room` is a file_handle whose `len` bytes follow.
        let result = unsafe {
            libc::name_to_handle_at(
                libc::AT_FDCWD,
                path.as_ptr(),
                (&raw mut room).cast(),
                &raw mut mount,
                libc::AT_SYMLINK_FOLLOW | flags,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        let len = usize::try_from(room.len).map_or(BYTES_MAX, |len| len.min(BYTES_MAX));
        Ok(Handle { kind: room.kind, bytes: room.bytes[..len].to_vec() })
    }
}

/// Those that have something to read, by one call of the kernel.
pub(super) fn ready<'a>(
    queues: impl Iterator<Item = &'a mut Fanotify>,
) -> impl Iterator<Item = &'a mut Fanotify> {
    let queues: Vec<&mut Fanotify> = queues.collect();
    let mut polled: Vec<_> =
        queues.iter().map(|queue| PollFd::new(&queue.queue, PollFlags::IN)).collect();
    // When in doubt, all of them are read.
    let unknown = poll(&mut polled, Some(&Timespec::default())).is_err();
    let is_ready: Vec<bool> =
        polled.iter().map(|polled| unknown || !polled.revents().is_empty()).collect();
    queues.into_iter().zip(is_ready).filter_map(|(queue, ready)| ready.then_some(queue))
}

/// A descriptor of its own to wait on.
pub(super) fn waiting_on(queue: &Fanotify) -> io::Result<OwnedFd> {
    queue.as_fd().try_clone_to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(len: u32, mask: u64) -> Vec<u8> {
        let mut bytes = len.to_ne_bytes().to_vec();
        bytes.extend([3, 0]);
        bytes.extend(24u16.to_ne_bytes());
        bytes.extend(mask.to_ne_bytes());
        bytes.extend((-1i32).to_ne_bytes());
        bytes.extend(7i32.to_ne_bytes());
        bytes
    }

    fn events(bytes: &[u8]) -> (Vec<RawEvent>, Damage) {
        let (mut events, mut damage) = (Vec::new(), Damage::default());
        parse(bytes, &mut damage, &mut |event| events.push(event));
        (events, damage)
    }

    #[test]
    fn events_are_told_apart() {
        let mut bytes = header(24, libc::FAN_OPEN);
        bytes.extend(header(24, libc::FAN_Q_OVERFLOW));
        let mut record = vec![libc::FAN_EVENT_INFO_TYPE_DFID_NAME, 0];
        record.extend(28u16.to_ne_bytes());
        record.extend([0; 8]);
        record.extend(4u32.to_ne_bytes());
        record.extend(1i32.to_ne_bytes());
        record.extend([9, 9, 9, 9, b'a', b'b', 0, 0]);
        bytes.extend(header(24 + 28, libc::FAN_CREATE));
        bytes.extend(&record);
        let (events, damage) = events(&bytes);
        assert_eq!(damage, Damage { overflows: 1, lost: 0 });
        let [open, create] = &events[..] else { panic!("{events:?}") };
        assert_eq!((open.pid, open.mask, &open.entry), (7, libc::FAN_OPEN, &None));
        let expected = (Handle { kind: 1, bytes: vec![9; 4] }, Bytes::from("ab"));
        assert_eq!(create.entry.as_ref(), Some(&expected));
    }

    #[test]
    fn malformed_bytes_are_counted() {
        let good = header(24, libc::FAN_OPEN);
        for bytes in [&good[..10], &header(0, 1)[..], &header(25, 1), &header(23, 1)] {
            let (events, damage) = events(bytes);
            assert!(events.is_empty(), "{bytes:?}");
            assert_eq!(damage, Damage { overflows: 0, lost: 1 }, "{bytes:?}");
        }
        // A record that claims more than there is gives an event without a name.
        let mut bytes = header(28, libc::FAN_CREATE);
        bytes.extend([libc::FAN_EVENT_INFO_TYPE_DFID_NAME, 0, 200, 0]);
        let (events, _) = events(&bytes);
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].entry, None);
    }
}
