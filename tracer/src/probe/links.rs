//! Links: what keeps a program attached.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use super::{
    attached::Breakpoints,
    raw::{self, LinkCgroup, LinkEvent, LinkPlaces, OpenTracepoint},
};
use crate::perf;

/// What keeps a program attached; closing its descriptor detaches.
#[derive(Debug)]
pub(super) enum Link {
    Bpf(OwnedFd),
    /// Slow to detach.
    Breakpoints(OwnedFd),
    /// Closing the link detaches the program; closing the event, slow to close, only frees it.
    Tracepoint {
        link: OwnedFd,
        event: OwnedFd,
    },
}

/// Runs a program at a raw tracepoint, whoever comes there.
pub(super) fn to_raw_tracepoint(program: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let name = CString::new(name)?;
    open_tracepoint(program, Some(&name))
}

/// Runs a program where it was loaded for.
pub(super) fn to_function(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    open_tracepoint(program, None)
}

fn open_tracepoint(program: BorrowedFd<'_>, name: Option<&CStr>) -> io::Result<OwnedFd> {
    let attr = OpenTracepoint {
        name: name.map_or(0, |name| name.as_ptr() as u64),
        program: number(program),
        padding: 0,
    };
    raw::open(raw::RAW_TRACEPOINT_OPEN, &attr)
}

/// Runs a program for what processes of a cgroup do, beside others that are attached to it.
pub(super) fn to_cgroup(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let attr =
        LinkCgroup { program: number(program), cgroup: number(cgroup), attach_type, flags: 0 };
    raw::open(raw::LINK_CREATE, &attr)
}

/// Runs a program at a classic tracepoint, whoever comes there. Tracefs need not be mounted.
pub(super) fn to_tracepoint(program: BorrowedFd<'_>, group: &str, name: &str) -> io::Result<Link> {
    let event = perf::open_tracepoint_of_all(perf::tracepoint_id(group, name)?)?;
    let link = to_event(program, event.as_fd(), 0)?;
    Ok(Link::Tracepoint { link, event })
}

/// Runs a program at places in a file, in every process that has it mapped.
pub(crate) fn to_breakpoints(
    program: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    places: &Breakpoints<'_>,
) -> io::Result<OwnedFd> {
    if places.together {
        // The file itself, whatever becomes of its name.
        let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        return to_places(program, &path, places);
    }
    let [offset] = places.offsets else { return Err(io::ErrorKind::InvalidInput.into()) };
    let event = perf::open_breakpoint(file, *offset, places.at_return)?;
    to_event(program, event.as_fd(), places.cookie)
}

/// Whether the kernel has links of several breakpoints (`uprobe_multi`, Linux 6.6), for which the program was loaded.
/// The kernel takes away breakpoints that are perf events one after the other, each with several grace periods,
/// while a lock is held. Links go side by side, one grace period for all places of each; and less is done at each
/// stop.
///
/// Earlier kernels load programs for such links, since they do not look at what they are to be attached to, and
/// attach none. Those that can say EBADF of what is no regular file, before anything else is looked at
/// (bpf_uprobe_multi_link_attach, kernel/trace/bpf_trace.c).
pub(super) fn has_several_breakpoints(program: BorrowedFd<'_>) -> io::Result<()> {
    let nowhere = Breakpoints { offsets: &[0], cookie: 0, at_return: false, together: true };
    match to_places(program, c"/", &nowhere) {
        Ok(_) => Err(io::Error::other("the kernel attaches a program to a folder")),
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(()),
        Err(error) => {
            Err(io::Error::other(format!("this kernel has no links of several places: {error}")))
        }
    }
}

fn to_places(
    program: BorrowedFd<'_>,
    path: &CStr,
    places: &Breakpoints<'_>,
) -> io::Result<OwnedFd> {
    const AT_RETURN: u32 = 1;
    let cookies = vec![places.cookie; places.offsets.len()];
    let attr = LinkPlaces {
        program: number(program),
        attach_type: raw::TRACE_UPROBE_MULTI,
        path: path.as_ptr() as u64,
        offsets: places.offsets.as_ptr() as u64,
        cookies: cookies.as_ptr() as u64,
        count: u32::try_from(places.offsets.len()).map_err(io::Error::other)?,
        multi_flags: if places.at_return { AT_RETURN } else { 0 },
        ..LinkPlaces::default()
    };
    raw::open(raw::LINK_CREATE, &attr)
}

/// Runs a program where a perf event is, with a number that it can ask for.
fn to_event(program: BorrowedFd<'_>, event: BorrowedFd<'_>, cookie: u64) -> io::Result<OwnedFd> {
    const PERF_EVENT: u32 = 41;
    let attr = LinkEvent {
        program: number(program),
        target: number(event),
        attach_type: PERF_EVENT,
        flags: 0,
        cookie,
    };
    raw::open(raw::LINK_CREATE, &attr)
}

/// Whether a link's program is attached to a cgroup no more, although the link is there; `None` for other links.
/// Of cgroups alone the kernel lets others detach what somebody holds a link to.
pub(super) fn is_detached(link: BorrowedFd<'_>) -> io::Result<Option<bool>> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", link.as_raw_fd()))?;
    let cgroup = info.lines().find_map(|line| line.strip_prefix("cgroup_id:"));
    Ok(cgroup.map(|id| id.trim() == "0"))
}

fn number(descriptor: BorrowedFd<'_>) -> u32 {
    descriptor.as_raw_fd().cast_unsigned()
}
