//! The ring of a perf event, mapped into memory.
//!
//! include/uapi/linux/perf_event.h describes it: a page with positions (`struct
//! perf_event_mmap_page`), then the data, a power of two of bytes. The kernel writes at `data_head`
//! and we say in `data_tail` how far we have read; without that it would overwrite.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Offsets in the first page.
const DATA_HEAD: usize = 1024;
const DATA_TAIL: usize = 1032;

/// A record begins with `struct perf_event_header`: type, misc, and its size with this header.
const HEADER_BYTES: usize = 8;

#[derive(Debug)]
pub(super) struct Ring {
    event: OwnedFd,
    page: NonNull<u8>,
    page_bytes: usize,
    data_bytes: usize,
}

// SAFETY: of this process, this value alone reaches the memory, and through `&mut self`. The process that
// made the event may have it mapped too, and leaves it alone.
unsafe impl Send for Ring {}

impl Ring {
    /// `data_bytes` is a power of two and at least a page.
    pub(super) fn map(event: OwnedFd, data_bytes: usize) -> io::Result<Ring> {
        let page_bytes = rustix::param::page_size();
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        let whole = page_bytes + data_bytes;
        // SAFETY: a new mapping at a place of the kernel's choice, which nothing else uses.
        let page = unsafe { mmap(std::ptr::null_mut(), whole, protection, flags, &event, 0) }?;
        let page = NonNull::new(page.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Ring { event, page, page_bytes, data_bytes })
    }

    fn position(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: the offset lies in the first page.
        let at = unsafe { self.page.add(offset) };
        // SAFETY: it is aligned to eight bytes, mapped as long as `self`, and shared with the kernel,
        // which accesses it atomically.
        unsafe { at.cast::<AtomicU64>().as_ref() }
    }

    /// Hands on every record: type, misc and what follows the header. `false` when something in it
    /// makes no sense, which ends the reading of all there is.
    pub(super) fn drain(&mut self, sink: &mut dyn FnMut(u32, u16, &[u8])) -> bool {
        let head = self.position(DATA_HEAD).load(Ordering::Acquire);
        let mut tail = self.position(DATA_TAIL).load(Ordering::Relaxed);
        let mut sound = true;
        let mut record = Vec::new();
        while tail != head {
            let left = usize::try_from(head.wrapping_sub(tail)).unwrap_or(usize::MAX);
            let mut header = [0; HEADER_BYTES];
            self.copy(tail, &mut header);
            let (kind, misc, size) = split_header(header);
            if size < HEADER_BYTES || size > left || size > self.data_bytes {
                sound = false;
                tail = head;
                break;
            }
            record.resize(size, 0);
            self.copy(tail, &mut record);
            sink(kind, misc, &record[HEADER_BYTES..]);
            tail = tail.wrapping_add(size as u64);
        }
        self.position(DATA_TAIL).store(tail, Ordering::Release);
        sound
    }

    /// Bytes from a position on, which may wrap around.
    fn copy(&self, from: u64, to: &mut [u8]) {
        let mask = self.data_bytes - 1;
        let begin = usize::try_from(from & mask as u64).unwrap_or(0);
        let first = to.len().min(self.data_bytes - begin);
        // SAFETY: the data begins behind the first page, and `begin` is less than its length.
        let at = unsafe { self.page.add(self.page_bytes + begin) };
        // SAFETY: `first` bytes from there are mapped, and the kernel does not write between tail and
        // head.
        unsafe { std::ptr::copy_nonoverlapping(at.as_ptr(), to.as_mut_ptr(), first) };
        let rest = &mut to[first..];
        // SAFETY: in bounds: a record is no longer than the data.
        let start = unsafe { self.page.add(self.page_bytes) };
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(start.as_ptr(), rest.as_mut_ptr(), rest.len()) };
    }
}

fn split_header([a, b, c, d, e, f, g, h]: [u8; HEADER_BYTES]) -> (u32, u16, usize) {
    let size = usize::from(u16::from_ne_bytes([g, h]));
    (u32::from_ne_bytes([a, b, c, d]), u16::from_ne_bytes([e, f]), size)
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and nothing refers to it any more. A failure
        // leaves the mapping, which ends with the process.
        let _ = unsafe { munmap(self.page.as_ptr().cast(), self.page_bytes + self.data_bytes) };
    }
}
