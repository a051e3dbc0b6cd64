//! Process 1 of the virtual machines in which tracer is checked on other kernels, and the odd
//! programs it is checked with: `cargo xtask vm` puts this one static file into an initramfs.

use std::process::ExitCode;

use tracer_tests::vm;

fn main() -> ExitCode {
    // The kernel hands words of its command line that it does not know to process 1.
    if std::process::id() == 1 {
        vm::init();
    }
    let mut arguments = std::env::args().skip(1);
    match arguments.next() {
        Some(deed) => vm::odd::main(&deed, &arguments.collect::<Vec<_>>()),
        None => {
            eprintln!("vm-init is process 1 of a virtual machine: run `cargo xtask vm`");
            ExitCode::from(2)
        }
    }
}
