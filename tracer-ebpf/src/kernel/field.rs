//! Reading kernel memory through offsets that the collector took from BTF.

use aya_ebpf::{Global, helpers::bpf_probe_read_kernel};
use tracer_ebpf::offsets::ABSENT;

macro_rules! globals {
    ($($global:ident: $($structure:literal $path:literal),+;)*) => {
        $(
            #[unsafe(no_mangle)]
            pub(crate) static $global: Global<u32> = Global::new(ABSENT);
        )*
    };
}

tracer_ebpf::kernel_fields!(globals);

/// An address in kernel memory. Reading through it is always safe: the helper checks the address
/// and fails where nothing is mapped.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct KernelPtr(pub(crate) u64);

impl KernelPtr {
    pub(crate) fn is_null(self) -> bool {
        self.0 == 0
    }

    /// The address of a field, or `None` if this kernel has no such field.
    #[inline(always)]
    pub(crate) fn at(self, field: &Global<u32>) -> Option<KernelPtr> {
        let offset = field.load();
        if offset == ABSENT || self.is_null() {
            return None;
        }
        Some(KernelPtr(self.0 + u64::from(offset)))
    }

    #[inline(always)]
    pub(crate) fn load<T: Copy>(self) -> Option<T> {
        // SAFETY: bpf_probe_read_kernel validates the source address itself, and every `T` used
        // here is an integer or an array of integers, for which any bit pattern is valid.
        unsafe { bpf_probe_read_kernel(self.0 as *const T) }.ok()
    }

    #[inline(always)]
    pub(crate) fn read<T: Copy>(self, field: &Global<u32>) -> Option<T> {
        self.at(field)?.load()
    }

    /// Reads a pointer field; null is `None`.
    #[inline(always)]
    pub(crate) fn follow(self, field: &Global<u32>) -> Option<KernelPtr> {
        let address: u64 = self.read(field)?;
        if address == 0 { None } else { Some(KernelPtr(address)) }
    }
}
