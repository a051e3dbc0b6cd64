//! Fields of an open file and its inode.

use tracer_ebpf::abi::{ExecFile, FileKey};

use super::field::{self, KernelPtr};

#[derive(Clone, Copy)]
pub struct File(pub KernelPtr);

impl File {
    #[inline(always)]
    pub fn dentry(self) -> Option<KernelPtr> {
        self.0.follow(&field::FILE_DENTRY)
    }

    #[inline(always)]
    pub fn mount(self) -> Option<KernelPtr> {
        self.0.follow(&field::FILE_MOUNT)
    }

    #[inline(always)]
    fn inode(self) -> Option<KernelPtr> {
        self.0.follow(&field::FILE_INODE)
    }

    #[inline(always)]
    pub fn key(self) -> Option<FileKey> {
        let inode = self.inode()?;
        let device: u32 = inode.follow(&field::INODE_SUPER)?.read(&field::SUPER_DEVICE)?;
        Some(FileKey { inode: inode.read(&field::INODE_NUMBER)?, device, padding: 0 })
    }

    #[inline(always)]
    pub fn describe(self) -> Option<ExecFile> {
        let inode = self.inode()?;
        let mode: u16 = inode.read(&field::INODE_MODE)?;
        Some(ExecFile {
            key: self.key()?,
            size_bytes: inode.read(&field::INODE_SIZE)?,
            mtime_s: inode.read(&field::INODE_MTIME_S)?,
            ctime_s: inode.read(&field::INODE_CTIME_S)?,
            // tv_nsec was eight bytes wide until 6.11; the value fits the lower four either way.
            mtime_ns: inode.read(&field::INODE_MTIME_NS)?,
            ctime_ns: inode.read(&field::INODE_CTIME_NS)?,
            mode: u32::from(mode),
            links: inode.read(&field::INODE_LINKS)?,
        })
    }

    /// Whether the file came from `memfd_create`: a nameless dentry of its own on tmpfs.
    #[inline(always)]
    pub fn is_memfd(self) -> Option<bool> {
        const TMPFS_MAGIC: u64 = 0x0102_1994;
        const HUGETLBFS_MAGIC: u64 = 0x958_458f6;
        let magic: u64 = self.inode()?.follow(&field::INODE_SUPER)?.read(&field::SUPER_MAGIC)?;
        let dentry = self.dentry()?;
        let parent: u64 = dentry.read(&field::DENTRY_PARENT)?;
        Some(parent == dentry.0 && (magic == TMPFS_MAGIC || magic == HUGETLBFS_MAGIC))
    }
}
