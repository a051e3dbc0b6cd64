//! Process 1 of the virtual machines in which tracer is tested on other kernels: `cargo xtask vm` puts
//! this file into an initramfs.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        tracer_tests::vm::init();
    }
    eprintln!("vm-init is process 1 of a virtual machine: run `cargo xtask vm`");
    ExitCode::from(2)
}
