//! What standard input and output are open on.

use tracer_ebpf::abi;

use crate::{
    model::Device,
    record::schema::{Descriptor, DescriptorKind, Stdio},
};

pub(super) fn stdio([input, output]: &[abi::Stdio; 2]) -> Stdio {
    Stdio { input: descriptor(input), output: descriptor(output) }
}

fn descriptor(stdio: &abi::Stdio) -> Descriptor {
    if *stdio == abi::Stdio::default() {
        return Descriptor { kind: DescriptorKind::Closed, inode: None, device: None };
    }
    // Documentation/admin-guide/devices.txt: 1:3 is the null device; 4 and 5 are terminals of the
    // machine, 136 to 143 pseudo terminals.
    let device = Device(stdio.device);
    let kind = match (stdio.mode & libc::S_IFMT, device.major(), device.minor()) {
        (libc::S_IFIFO, ..) => DescriptorKind::Pipe,
        (libc::S_IFSOCK, ..) => DescriptorKind::Socket,
        (libc::S_IFREG, ..) => DescriptorKind::File,
        (libc::S_IFCHR, 1, 3) => DescriptorKind::Null,
        (libc::S_IFCHR, 4 | 5 | 136..=143, _) => DescriptorKind::Terminal,
        (libc::S_IFCHR | libc::S_IFBLK, ..) => DescriptorKind::Device,
        _ => DescriptorKind::Other,
    };
    Descriptor { kind, inode: Some(stdio.key.inode), device: Some(Device(stdio.key.device)) }
}
