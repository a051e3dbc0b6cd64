//! Attaching a program to a classic tracepoint.
//!
//! aya can do that too, but only where tracefs is mounted, and with the perf event in one with the link.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
};

use super::{attach::Link, guard::link_to_event};
use crate::perf;

/// Runs `program` at the tracepoint, whoever comes there, until the link is closed.
pub(super) fn attach(group: &str, name: &str, program: BorrowedFd<'_>) -> io::Result<Link> {
    let event = perf::open_tracepoint_of_all(perf::tracepoint_id(group, name)?)?;
    let link = link_to_event(program, event.as_fd(), 0)?;
    Ok(Link::Tracepoint { link, event })
}
