//! Walking a dentry up to the root of its mount tree.
//!
//! `bpf_d_path` is refused in raw tracepoints, and a path resolved later from /proc can be that of
//! another file. The walk takes no lock: a rename at the same moment can mix two paths, which is
//! why identity rests on the inode and the path is only its description.
//!
//! A reference to the scratch area must not live across `bpf_loop`: the callback has its own, and
//! the compiler would not see what it wrote.

use aya_ebpf::{cty::c_void, helpers::generated::bpf_loop};
use tracer_ebpf::abi::PATH_PARTS_MAX;

use super::{
    field::{self, KernelPtr},
    scratch::{self, Scratch},
};

#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Walk {
    dentry: u64,
    /// `struct mount`, around the `vfsmount` that a `struct path` has.
    mount: u64,
    /// `mnt_root` of that mount.
    mount_root: u64,
    written: u32,
    state: u32,
}

const WALKING: u32 = 0;
const AT_ROOT: u32 = 1;
const FAILED: u32 = 2;

/// What a walk wrote.
pub(crate) struct Walked {
    pub(crate) len: u32,
    /// The root was reached, so nothing is missing at the beginning of the path.
    pub(crate) complete: bool,
}

/// Longest file name, with its NUL.
const NAME_BYTES: u32 = 256;
/// Mount points crossed count as steps too.
const STEPS_MAX: u32 = PATH_PARTS_MAX + 16;

/// Appends the components of a path to the scratch record, leaf first.
#[inline(always)]
pub(crate) fn append(dentry: KernelPtr, vfsmount: KernelPtr) -> Option<Walked> {
    let mount = vfsmount.0.wrapping_sub(u64::from(field::MOUNT_VFS.load()));
    let mount_root: u64 = vfsmount.read(&field::VFSMOUNT_ROOT)?;
    scratch::get()?.walk = Walk { dentry: dentry.0, mount, mount_root, written: 0, state: WALKING };
    // SAFETY: `step` has the signature bpf_loop calls; it takes no context.
    unsafe { bpf_loop(STEPS_MAX, step as *const () as *mut c_void, core::ptr::null_mut(), 0) };
    let walk = scratch::get()?.walk;
    (walk.state != FAILED && walk.written > 0)
        .then_some(Walked { len: walk.written, complete: walk.state == AT_ROOT })
}

/// One component, or one mount point crossed. Returns 1 to stop.
unsafe extern "C" fn step(_: u64, _: *mut c_void) -> i64 {
    const GO_ON: i64 = 0;
    const STOP: i64 = 1;
    let Some(scratch) = scratch::get() else { return STOP };
    match advance(scratch) {
        Some(WALKING) => GO_ON,
        Some(state) => {
            scratch.walk.state = state;
            STOP
        }
        None => {
            scratch.walk.state = FAILED;
            STOP
        }
    }
}

#[inline(always)]
fn advance(scratch: &mut Scratch) -> Option<u32> {
    let walk = scratch.walk;
    let dentry = KernelPtr(walk.dentry);
    let parent: u64 = dentry.read(&field::DENTRY_PARENT)?;
    if walk.dentry == walk.mount_root || walk.dentry == parent {
        let mount = KernelPtr(walk.mount);
        let parent_mount: u64 = mount.read(&field::MOUNT_PARENT)?;
        if walk.dentry != walk.mount_root || parent_mount == walk.mount {
            // The top, or a file that is in no directory (memfd): then its own name is all.
            return if walk.written == 0 { append_name(scratch, dentry) } else { Some(AT_ROOT) };
        }
        let mountpoint: u64 = mount.read(&field::MOUNT_MOUNTPOINT)?;
        let parent_vfs = KernelPtr(parent_mount).at(&field::MOUNT_VFS)?;
        scratch.walk.mount_root = parent_vfs.read(&field::VFSMOUNT_ROOT)?;
        scratch.walk.dentry = mountpoint;
        scratch.walk.mount = parent_mount;
        return Some(WALKING);
    }
    append_name(scratch, dentry)?;
    scratch.walk.dentry = parent;
    Some(WALKING)
}

#[inline(always)]
fn append_name(scratch: &mut Scratch, dentry: KernelPtr) -> Option<u32> {
    let name = dentry.follow(&field::DENTRY_NAME)?;
    let written = scratch.append_str(name, NAME_BYTES);
    scratch.walk.written += written;
    (written > 0).then_some(AT_ROOT)
}
