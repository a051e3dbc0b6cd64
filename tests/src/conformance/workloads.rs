//! What is run.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Result, ensure};

use super::run::{Counts, Stage};
use crate::{Skip, evasions::tools, fixtures, on_path};

/// Something real that starts processes and reaches others.
#[derive(Debug)]
pub struct Workload {
    pub name: &'static str,
    /// For readers.
    pub what: &'static str,
    /// It takes seconds, and is tried in every run of the tests.
    pub is_quick: bool,
    /// Among the hosts and the name server of the lab, instead of in an empty network.
    pub in_lab: bool,
    /// Words of reasons for which the verdict is inconclusive, and rightly so. Without any it must be
    /// proven.
    pub reasons: &'static [&'static str],
    /// What it does on any machine, as far as strace sees it: less, and it did not do its work.
    pub at_least: Counts,
    /// Prepares it, and gives its command line. It runs in the stage's folder.
    pub words: fn(&Stage) -> Result<Vec<String>>,
}

pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "node-children",
        what: "Node: every function and option of `node:child_process`, `node:cluster`, a worker thread \
               that spawns; failures, time-outs, signals, IPC",
        is_quick: true,
        in_lab: false,
        reasons: &[],
        at_least: at_least(100, 85, 12, 0),
        words: |_| script("node", "children.mjs", &["2"]),
    },
    Workload {
        name: "node-network",
        what: "Node: `net`, `http`, `http2`, `fetch`, `dgram`, `dns`; both families, refused, unreachable, \
               aborted",
        is_quick: true,
        in_lab: false,
        reasons: &[],
        at_least: at_least(1, 2, 100, 20),
        words: |_| script("node", "network.mjs", &["2"]),
    },
    Workload {
        name: "npm-ci",
        what: "`npm ci` of packages that the test makes and serves on the loopback device, with install \
               scripts; then `npm run`",
        is_quick: false,
        in_lab: false,
        reasons: &[],
        at_least: at_least(50, 50, 10, 0),
        words: |stage| {
            on_path("npm")?;
            script("node", "install.mjs", &[&stage.file("project"), "24"])
        },
    },
    Workload {
        name: "configure-make",
        what: "`./configure && make && make check` of GNU hello 2.10, from Debian's source package",
        is_quick: false,
        in_lab: false,
        reasons: &[],
        at_least: at_least(2000, 1500, 0, 0),
        words: |stage| {
            unpack_source(stage, "hello")?;
            // A user's own settings must not change what is built.
            shell(
                "cd hello && FORCE_UNSAFE_CONFIGURE=1 ./configure -q && make -s -j2 && make -s check",
            )
        },
    },
    Workload {
        name: "perl-tests",
        what: "tests of Perl 5.36 about `exec`, `fork`, `system`, pipes and sockets, from Debian's source \
               package, by the machine's perl",
        is_quick: false,
        in_lab: false,
        reasons: &[],
        at_least: at_least(280, 270, 4, 1),
        words: |stage| {
            on_path("perl")?;
            unpack_source(stage, "perl")?;
            let tests = "op/exec.t op/fork.t op/die_exit.t op/kill0.t op/magic.t op/alarm.t \
                         io/pipe.t io/dup.t io/argv.t io/open.t io/openpid.t io/inplace.t \
                         io/socket.t io/socketpair.t io/eintr.t io/perlio_open.t \
                         run/fresh_perl.t run/exit.t run/switches.t run/script.t \
                         ../dist/IO/t/io_sock.t ../dist/IO/t/io_udp.t ../dist/IO/t/io_unix.t \
                         ../dist/IO/t/io_multihomed.t ../dist/IO/t/io_pipe.t ../dist/IO/t/io_poll.t";
            let link = "ln -sf \"$(command -v perl)\" perl";
            // A test that fails here fails without tracer, too, so `prove`'s status is not the
            // workload's. That it has run all of them is.
            let count = tests.split_whitespace().count();
            shell(&format!(
                "cd perl/t && {link} && {{ PERL_CORE=1 prove -Q {tests} >proved 2>&1\n\
                 grep '^Files={count}, Tests=[1-9][0-9][0-9]' proved || {{ cat proved >&2; exit 1; }}; }}"
            ))
        },
    },
    Workload {
        name: "stress-ng",
        what: "stress-ng: `fork`, `vfork`, `clone`, `daemon`, `zombie`, `sock`, `udp`; as another user than \
               root, as which they refuse to run, `exec` (all its methods) and `spawn`",
        is_quick: true,
        in_lab: false,
        reasons: &[],
        at_least: at_least(700, 141, 15, 1),
        words: |stage| {
            let program = tools().join("conformance/bin/stress-ng");
            let program = if program.is_file() { program } else { on_path("stress-ng")? };
            let (setpriv, folder) = (on_path("setpriv")?, stage.folder_of_all("stress")?);
            // `exec` and `spawn` refuse to run as root, and stress-ng ends with 0 all the same. Another
            // user may not be allowed to reach the program where it is, without these capabilities.
            let capabilities = "+dac_read_search,+dac_override";
            let as_nobody = format!(
                "{} --reuid 65534 --regid 65534 --clear-groups --inh-caps {capabilities} --ambient-caps \
                 {capabilities}",
                setpriv.display()
            );
            shell(&format!(
                "cd {folder}\n\
                 stress() {{ one=$1; shift; \"$@\" {} --${{one%:*}} 1 --${{one%:*}}-ops ${{one#*:}} \
                 --exec-max 20 --timeout 30 --quiet --temp-path . || exit 1; }}\n\
                 for each in fork:200 vfork:200 clone:200 daemon:30 zombie:50 sock:20 udp:50; do \
                 stress $each; done\n\
                 for each in exec:60 spawn:100; do stress $each {as_nobody}; done",
                program.display()
            ))
        },
    },
    Workload {
        name: "python",
        what: "Python: `multiprocessing` by fork, spawn and forkserver, executors, `subprocess`, \
               `os.posix_spawn`, `asyncio`",
        is_quick: true,
        in_lab: false,
        reasons: &[],
        at_least: at_least(40, 30, 28, 0),
        words: |_| script("/usr/bin/python3", "processes.py", &["1"]),
    },
    Workload {
        name: "curl",
        what: "curl among the lab's hosts: TLS, HTTP/1.1, many at once, refused, unknown names",
        is_quick: true,
        in_lab: true,
        reasons: &[],
        at_least: at_least(10, 10, 9, 4),
        words: |_| {
            on_path("curl")?;
            let hosts = "api.anthropic.com sts.amazonaws.com mcp.context7.com github.com";
            shell(&format!(
                "set -e\nfails() {{ if \"$@\" >>out; then echo \"$* succeeded\" >&2; exit 1; fi; }}\n\
                 for host in {hosts}; do curl -ks https://$host/; done >out\n\
                 curl -ksZ https://varied.example/v/1?bytes=1000 https://varied.example/v/2 \
                 https://api.anthropic.com/ https://github.com/ http://varied.example/v/3 >>out\n\
                 fails curl -s --max-time 5 http://no-such-name.example/\n\
                 fails curl -s https://iam.amazonaws.com:444/\n\
                 fails curl -s --resolve refused.example:81:127.0.0.9 http://refused.example:81/\n\
                 fails curl -s 'http://[::1]:81/'"
            ))
        },
    },
    Workload {
        name: "cases",
        what: "own ports of the ideas of the Linux Test Project's execve, execveat, fork, vfork, clone, \
               clone3 and connect cases (Debian 12 has no package of it): `cases.c`",
        is_quick: true,
        in_lab: false,
        reasons: &["it executed an anonymous memory file"],
        at_least: at_least(300, 88, 31, 8),
        words: |stage| {
            let (from, to) = (fixtures().join("conformance/cases.c"), stage.file("cases"));
            let mut cc = Command::new(on_path("cc")?);
            cc.args(["-std=gnu11", "-O1", "-pthread", "-Wall", "-Wextra", "-Werror", "-o", &to]);
            let output = cc.arg(from).output()?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Ok(vec![to])
        },
    },
];

const fn at_least(processes: u64, execs: u64, tcp: u64, udp: u64) -> Counts {
    Counts { processes, threads: 0, execs, tcp, udp }
}

fn script(program: &str, name: &str, arguments: &[&str]) -> Result<Vec<String>> {
    let program = if program.starts_with('/') {
        let path = PathBuf::from(program);
        ensure!(path.is_file(), Skip(format!("there is no {program}")));
        path
    } else {
        on_path(program)?
    };
    let file = fixtures().join("conformance").join(name);
    let words = [program.display().to_string(), file.display().to_string()];
    Ok(words.into_iter().chain(arguments.iter().map(ToString::to_string)).collect())
}

fn shell(text: &str) -> Result<Vec<String>> {
    Ok(["sh", "-c", text].map(str::to_owned).into())
}

/// A copy of a source package that the set-up has brought, as a folder of that name.
fn unpack_source(stage: &Stage, name: &str) -> Result<()> {
    let folder = tools().join("sources");
    let archive = fs::read_dir(&folder).ok().and_then(|entries| {
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        files.into_iter().find(|file| {
            let file = file.file_name().unwrap_or_default().to_string_lossy();
            file.starts_with(&format!("{name}_"))
                && file.contains(".orig.tar.")
                && !file.ends_with(".asc")
        })
    });
    let Some(archive) = archive else {
        return Err(Skip(format!("no source package of {name} in {}", folder.display())).into());
    };
    fs::create_dir_all(stage.file(name))?;
    let mut tar = Command::new(on_path("tar")?);
    tar.arg("-xf").arg(&archive).args(["--strip-components=1", "-C", &stage.file(name)]);
    let output = tar.output()?;
    ensure!(output.status.success(), "tar: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
