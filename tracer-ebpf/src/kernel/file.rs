//! Fields of an open file and its inode.

use tracer_ebpf::abi::{ExecFile, Stdio};

use super::field::{self, KernelPtr};

/// Since 6.13 the kernel notes in the top bit of the nanoseconds that somebody has asked for them
/// (I_CTIME_QUERIED, include/linux/fs.h); older ones never set it.
const CTIME_QUERIED: u32 = 1 << 31;

#[derive(Clone, Copy)]
pub(crate) struct File(pub(crate) KernelPtr);

impl File {
    #[inline(always)]
    pub(crate) fn dentry(self) -> Option<KernelPtr> {
        self.0.follow(&field::FILE_DENTRY)
    }

    #[inline(always)]
    pub(crate) fn mount(self) -> Option<KernelPtr> {
        self.0.follow(&field::FILE_MOUNT)
    }

    #[inline(always)]
    fn inode(self) -> Option<KernelPtr> {
        self.0.follow(&field::FILE_INODE)
    }

    /// Fills a zeroed description; `None` when a read failed.
    #[inline(always)]
    pub(crate) fn describe(self, file: &mut ExecFile) -> Option<()> {
        let inode = self.inode()?;
        file.key.device = inode.follow(&field::INODE_SUPER)?.read(&field::SUPER_DEVICE)?;
        file.key.inode = inode.read(&field::INODE_NUMBER)?;
        file.size_bytes = inode.read(&field::INODE_SIZE)?;
        file.mtime_s = inode.read(&field::INODE_MTIME_S)?;
        file.ctime_s = inode.read(&field::INODE_CTIME_S)?;
        // tv_nsec was eight bytes wide until 6.11; the value fits the lower four either way.
        file.mtime_ns = inode.read(&field::INODE_MTIME_NS)?;
        file.ctime_ns = inode.read::<u32>(&field::INODE_CTIME_NS)? & !CTIME_QUERIED;
        file.mode = u32::from(inode.read::<u16>(&field::INODE_MODE)?);
        file.links = inode.read(&field::INODE_LINKS)?;
        Some(())
    }

    /// What it is, for a descriptor; `None` when a read failed.
    #[inline(always)]
    pub(crate) fn describe_stdio(self, stdio: &mut Stdio) -> Option<()> {
        let inode = self.inode()?;
        stdio.key.device = inode.follow(&field::INODE_SUPER)?.read(&field::SUPER_DEVICE)?;
        stdio.key.inode = inode.read(&field::INODE_NUMBER)?;
        stdio.mode = u32::from(inode.read::<u16>(&field::INODE_MODE)?);
        stdio.device = inode.read(&field::INODE_DEVICE)?;
        Some(())
    }

    /// Whether the file came from `memfd_create`: a nameless dentry of its own on tmpfs.
    #[inline(always)]
    pub(crate) fn is_memfd(self) -> Option<bool> {
        const TMPFS_MAGIC: u64 = 0x0102_1994;
        const HUGETLBFS_MAGIC: u64 = 0x958_458f6;
        let magic: u64 = self.inode()?.follow(&field::INODE_SUPER)?.read(&field::SUPER_MAGIC)?;
        let dentry = self.dentry()?;
        let parent: u64 = dentry.read(&field::DENTRY_PARENT)?;
        Some(parent == dentry.0 && (magic == TMPFS_MAGIC || magic == HUGETLBFS_MAGIC))
    }
}
