//! The eBPF programs. Built for the bpf target only, by `cargo xtask build`.
//!
//! `probes` holds one file per hook family, `kernel` what they share. Nothing here decides
//! anything: a probe rejects what is not tracked, reads, counts and emits.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// One instruction, the atomic add of `kernel::emit`, and the bounds checks of aya-ebpf.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod kernel;
#[cfg(target_arch = "bpf")]
mod probes;

/// helpers such as `bpf_probe_read_kernel` are GPL-only; this object is "Dual MIT/GPL".
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses an infinite loop, so a program that could reach this never loads.
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("tracer-probes is an eBPF object: build it with `cargo xtask build`");
    std::process::exit(2);
}
