//! The eBPF object first, then the programs that carry it.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    command::{self, IfFails},
    layout::Layout,
    setup::{self, BpfTools, replace_if_different},
};

pub(crate) const BPF_TRIPLE: &str = "bpfel-unknown-none";
const OBJECT: &str = "tracer-probes";
/// With it named, flags for programs are none for build scripts and macros, which cannot be static.

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Build `target/image/tracer`, which needs no C library: for container images
    #[arg(long = "static", conflicts_with = "debug_log")]
    image: bool,
    /// Let the probes write log lines, for work on them
    #[arg(long)]
    debug_log: bool,
}

pub(crate) fn task(layout: &Layout, options: &Options) -> Result<()> {
    let tools = setup::for_build(layout)?;
    if options.image {
        ebpf_object(layout, &tools, options)?;
        println!("{}", for_image(layout)?.display());
        return Ok(());
    }
    everything(layout, &tools, options)
}

/// Builds a tracer that needs no C library, and puts it where `deploy/Containerfile` finds it. Only the last crate
/// is told so, since what is compiled before it is the same for both; that crate is then built again as it was.
pub(crate) fn for_image(layout: &Layout) -> Result<PathBuf> {
    let tracer = |task: &str| {
        let mut cargo = command::host_cargo(layout);
        cargo.args([task, "--release", "--package=tracer", "--bin=tracer"]);
        cargo.arg("--target-dir").arg(layout.target());
        cargo
    };
    let mut cargo = tracer("rustc");
    cargo.args(["--", "-Ctarget-feature=+crt-static", "-Cstrip=symbols"]);
    let if_fails = IfFails {
        it_means: "tracer cannot be built as a static program, which container images need",
        remedy: "read the compiler's messages above; the C library's static archive comes with \
                 libc6-dev, glibc-static elsewhere",
    };
    command::run_shown(&mut cargo, if_fails)?;

    let image = layout.target().join("image");
    fs::create_dir_all(&image).with_context(|| format!("cannot create {}", image.display()))?;
    let from = layout.release("tracer");
    let to = image.join("tracer");
    // What is there may be running, and cannot be written over then.
    let new = image.join(".tracer");
    fs::copy(&from, &new)
        .and_then(|_| fs::rename(&new, &to))
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    command::run_shown(&mut tracer("build"), if_fails)?;
    Ok(to)
}

pub(crate) fn everything(layout: &Layout, tools: &BpfTools, options: &Options) -> Result<()> {
    ebpf_object(layout, tools, options)?;
    programs(layout, options)
}

/// The arguments that select the kernel side, for `build` and `clippy` alike.
pub(crate) fn select_bpf<'a>(
    cargo: &'a mut Command,
    layout: &Layout,
    features: &str,
) -> &'a mut Command {
    cargo.args(["--package=tracer-ebpf", "--bin", OBJECT, "--release", "-Zbuild-std=core"]);
    cargo.arg(format!("--target={BPF_TRIPLE}")).arg(format!("--features={features}"));
    cargo.arg("--target-dir").arg(layout.bpf_target())
}

fn ebpf_object(layout: &Layout, tools: &BpfTools, options: &Options) -> Result<()> {
    let features = if options.debug_log { "probes,debug-log" } else { "probes" };
    let mut cargo = tools.toolchain.cargo(layout);
    select_bpf(cargo.arg("build"), layout, features);
    // The whole program is put together by bpf-linker; rustc's own link-time optimisation would
    // run before it has seen everything, and is meant for the host by the release profile.
    cargo.env("CARGO_PROFILE_RELEASE_LTO", "off");
    // Built piece by piece, functions that return two registers are not inlined, and verifiers know of
    // one ("R2 !read_ok"); 6.1 then refuses programs that are fine otherwise.
    cargo.env("CARGO_INCREMENTAL", "0");
    cargo.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &tools.linker);
    // BTF is made from debug information, and the kernel wants BTF for the maps' types and for
    // naming source lines in the verifier's log.
    //
    // Left to itself bpf-linker has LLVM write and copy nothing in place: each record would be zeroed by a
    // call of a loop that goes from byte to byte, at run time and in the verifier.
    cargo.env(
        "RUSTFLAGS",
        "-Cdebuginfo=2 -Clink-arg=--btf -Clink-arg=--disable-expand-memcpy-in-order",
    );
    let if_fails = IfFails {
        it_means: "there is no eBPF object to put into tracer",
        remedy: "read the compiler's messages above; if they are about the toolchain or the \
                 linker, remove target/tools and target/bpf-build and build again",
    };
    command::run_shown(&mut cargo, if_fails)?;

    let built = layout.bpf_target().join(BPF_TRIPLE).join("release").join(OBJECT);
    let object = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let object = without_dwarf(&object)
        .with_context(|| format!("{} is no object that can be read", built.display()))?;
    // Left alone if nothing changed, so that tracer is not rebuilt.
    replace_if_different(&layout.bpf_object(), &object)?;
    Ok(())
}

/// BTF is made from it, which stays. It is several times as large as all the rest, and whoever starts tracer would read it.
fn without_dwarf(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = object::build::elf::Builder::read(object)?;
    for section in &mut builder.sections {
        let name = section.name.as_slice();
        let name = name.strip_prefix(b".rel").unwrap_or(name);
        section.delete = name.starts_with(b".debug_");
    }
    builder.delete_orphans();
    // LLVM has names of sections and of symbols in one table, which cannot be written.
    let names = builder.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.data = object::build::elf::SectionData::SectionString;
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}

/// For builds that load no probes: where there is no object, something to include in its place.
pub(crate) fn use_stand_in(layout: &Layout, cargo: &mut Command) -> Result<()> {
    if !layout.bpf_object().exists() {
        let stand_in = layout.target().join("tmp").join("no-object");
        replace_if_different(&stand_in, b"")?;
        cargo.env("TRACER_EBPF_OBJECT", stand_in);
    }
    Ok(())
}

fn programs(layout: &Layout, options: &Options) -> Result<()> {
    let mut cargo = command::host_cargo(layout);
    cargo.args(["build", "--release", "--package=tracer", "--package=tracer-tests"]);
    cargo.arg("--target-dir").arg(layout.target());
    if options.debug_log {
        cargo.arg("--features=tracer/debug-log");
    }
    let if_fails = IfFails {
        it_means: "tracer or a program of the tests does not compile",
        remedy: "read the compiler's messages above",
    };
    command::run_shown(&mut cargo, if_fails)
}
