//! Files that are mapped as code without being executed.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tracer::{policy::Ruling, record::schema::MapsWatched};

use crate::{
    Test,
    harness::{Run, Scratch, copy_program, program, skip},
};

pub(crate) const TESTS: &[Test] = &[
    ("what_every_program_maps", what_every_program_maps),
    ("loader_and_harmless_program", loader_and_harmless_program),
    ("loader_and_copy", loader_and_copy),
    ("renamed_loader", renamed_loader),
    ("mapped_and_not_run", mapped_and_not_run),
    ("loader_given_memory", loader_given_memory),
    ("named_like_memory", named_like_memory),
    ("on_overlayfs", on_overlayfs),
    ("what_is_lost", what_is_lost),
    ("processors_come_and_go", processors_come_and_go),
];

/// `aws` on PATH, a copy of it elsewhere, and another program. All of them older than the moment in
/// which a change cannot be told from the mapping.
struct Files {
    copy: PathBuf,
    other: PathBuf,
}

fn files(scratch: &Scratch) -> Result<Files> {
    let aws = scratch.folder("bin")?.join("aws");
    let (copy, other) = (scratch.file("copy"), scratch.file("other"));
    copy_program(program(scratch, "stand-in")?, &aws)?;
    copy_program(&aws, &copy)?;
    copy_program(program(scratch, "load")?, &other)?;
    thread::sleep(Duration::from_millis(50));
    Ok(Files { copy, other })
}

/// The dynamic loader of programs on this machine.
fn loader() -> Result<PathBuf> {
    let loader = Path::new("/lib64/ld-linux-x86-64.so.2");
    if loader.exists() { Ok(loader.into()) } else { skip("the dynamic loader is not there") }
}

fn traced(scratch: &Scratch, command: &[&Path], options: &[&str]) -> Result<Run> {
    let path = std::env::join_paths(
        [scratch.file("bin")]
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )?;
    let mut tracer = scratch.run(command).policy("no-aws-cli").env("PATH", path);
    for option in options {
        tracer = tracer.option(option);
    }
    tracer.record()
}

fn mapped<'a>(run: &'a Run, name: &str) -> Vec<&'a tracer::record::schema::MappedFile> {
    let files = run.story.mapped.iter().flat_map(|mapped| &mapped.files);
    files.filter(|file| file.path.base_name().starts_with(name.as_bytes())).collect()
}

fn what_every_program_maps(scratch: &Scratch) -> Result<()> {
    let run = scratch.run(["ls"]).policy("no-aws-cli").record()?;
    run.proven()?;
    let libc = mapped(&run, "libc.so");
    let [libc] = libc[..] else { anyhow::bail!("libc was mapped {} times", libc.len()) };
    let stat = fs::metadata(libc.path.as_path())?;
    ensure!(libc.size_bytes == Some(stat.len()) && libc.unread.is_none(), "{libc:?}");
    ensure!(mapped(&run, "ls").is_empty(), "the executed file is there again");
    ensure!(run.end()?.maps == Some(MapsWatched::Lost(0)), "{:?}", run.end()?.maps);
    let none = scratch.run(["ls"]).record()?;
    ensure!(none.story.mapped.is_empty() && none.end()?.maps.is_none(), "without a policy");
    Ok(())
}

fn loader_and_harmless_program(scratch: &Scratch) -> Result<()> {
    let Files { other, .. } = files(scratch)?;
    let run = traced(scratch, &[&loader()?, &other, &other], &[])?;
    run.proven()?;
    ensure!(!mapped(&run, "other").is_empty(), "{:?}", run.story.mapped);
    Ok(())
}

fn loader_and_copy(scratch: &Scratch) -> Result<()> {
    let Files { copy, .. } = files(scratch)?;
    let run = traced(scratch, &[&loader()?, &copy], &[])?;
    run.rules(Ruling::Inconclusive)?.because(&[
        "mapped",
        "as code, which is aws",
        "same content",
    ])?;
    Ok(())
}

fn renamed_loader(scratch: &Scratch) -> Result<()> {
    let Files { copy, other } = files(scratch)?;
    let renamed = scratch.file("renamed");
    copy_program(loader()?, &renamed)?;
    let run = traced(scratch, &[&renamed, &copy], &[])?;
    run.rules(Ruling::Inconclusive)?.because(&["renamed", "mapped", "which is aws"])?;
    traced(scratch, &[&renamed, &other, &other], &[])?.proven()?;
    Ok(())
}

fn mapped_and_not_run(scratch: &Scratch) -> Result<()> {
    let Files { copy, other } = files(scratch)?;
    let run = traced(scratch, &[&other, &copy], &[])?;
    run.rules(Ruling::Inconclusive)?.because(&["other", "it mapped", "it may run it"])?;
    Ok(())
}

/// Memory that is a file, which the loader takes by its number.
fn loader_given_memory(scratch: &Scratch) -> Result<()> {
    let Files { copy, .. } = files(scratch)?;
    let script = "import os, sys; memory = os.memfd_create('x', 0); \
                  os.write(memory, open(sys.argv[2], 'rb').read()); \
                  os.execv(sys.argv[1], [sys.argv[1], f'/proc/self/fd/{memory}'])";
    let python = Path::new("/usr/bin/python3");
    let run = traced(scratch, &[python, "-c".as_ref(), script.as_ref(), &loader()?, &copy], &[])?;
    run.rules(Ruling::Inconclusive)?.because(&["it mapped /memfd:x", "no path leads to it"])?;
    Ok(())
}

/// What a file is called does not make memory of it.
fn named_like_memory(scratch: &Scratch) -> Result<()> {
    struct Removed(PathBuf);
    impl Drop for Removed {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }
    let Files { copy, other } = files(scratch)?;
    let named = Removed(format!("/memfd:tracer-test-{}", std::process::id()).into());
    copy_program(copy, &named.0)?;
    thread::sleep(Duration::from_millis(50));
    let run = traced(scratch, &[&other, &named.0], &[])?;
    run.rules(Ruling::Inconclusive)?.because(&["other", "it mapped", "it may run it"])?;
    Ok(())
}

/// What is mapped there is a file beneath, of another device. It is the one at its path only while it has the same
/// number.
fn on_overlayfs(scratch: &Scratch) -> Result<()> {
    let lower = scratch.folder("lower")?;
    fs::create_dir(scratch.file("empty"))?;
    fs::create_dir(scratch.file("merged"))?;
    let Files { copy, other } = files(scratch)?;
    for (file, name) in [(&copy, "copy"), (&other, "other"), (&other, "harmless")] {
        copy_program(file, lower.join(name))?;
    }
    thread::sleep(Duration::from_millis(50));
    // Looked at from within its mount namespace, which ends with it.
    let load = "import mmap, os, sys, time; f = os.open(sys.argv[1], os.O_RDONLY); \
                m = mmap.mmap(f, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC); time.sleep(1)";
    let within = |before: &str, file: &str| {
        let script = format!(
            "mount -t overlay -o lowerdir={}:{} none {merged}; cd {merged}; {before} \
             exec /usr/bin/python3 -c '{load}' {file}",
            lower.display(),
            scratch.file("empty").display(),
            merged = scratch.file("merged").display(),
        );
        let command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", &script];
        traced(scratch, &command.map(Path::new), &[])
    };
    let run = within("", "harmless")?;
    run.proven()?;
    let read = mapped(&run, "harmless");
    ensure!(read.len() == 1 && read[0].unread.is_none(), "{:?}", run.story.mapped);
    let run = within("", "copy")?;
    run.rules(Ruling::Inconclusive)?.because(&["python3", "it mapped", "which is aws"])?;
    // Another file is there when it is mapped.
    let run = within("exec 3< copy; mount --bind harmless copy;", "/proc/self/fd/3")?;
    run.rules(Ruling::Inconclusive)?.because(&["it mapped", "another file has its path"])?;
    Ok(())
}

fn what_is_lost(scratch: &Scratch) -> Result<()> {
    let script = "i=0; while [ $i -lt 200 ]; do ls /; i=$((i+1)); done > /dev/null";
    let run = scratch
        .run(["sh", "-c", script])
        .policy("no-aws-cli")
        .option("--debug-maps-bytes=4096")
        .record()?;
    let Some(MapsWatched::Lost(lost)) = run.end()?.maps else {
        anyhow::bail!("{:?}", run.end()?.maps);
    };
    // A ring of one page: whether it was read in time every time is the scheduler's business.
    match lost {
        0 => run.proven().map(drop),
        _ => run
            .rules(Ruling::Inconclusive)?
            .because(&[&format!("{lost} records of executable mappings were lost")])
            .map(drop),
    }
    .context("lost records")
}

/// In a virtual machine: a processor has its events from the start or not at all.
fn processors_come_and_go(scratch: &Scratch) -> Result<()> {
    const SECOND: &str = "/sys/devices/system/cpu/cpu1/online";
    let sure = |line: &str| scratch.run(["sh", "-c", line]).policy("no-aws-cli").record();
    let unsure = |line: &str| -> Result<()> {
        sure(line)?
            .rules(Ruling::Inconclusive)?
            .because(&["a processor came online or went offline"])?;
        Ok(())
    };
    fs::write(SECOND, "0")?;
    sure("ls")?.proven()?;
    unsure(&format!("echo 1 > {SECOND}; ls"))?;
    sure("ls")?.proven()?;
    // tracer looks once a second.
    unsure(&format!("echo 0 > {SECOND}; sleep 5; echo 1 > {SECOND}; ls"))?;
    sure("ls")?.proven()?;
    Ok(())
}
