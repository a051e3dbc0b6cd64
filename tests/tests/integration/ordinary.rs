//! Ordinary work is no violation, and nothing of it is left unexplained: package installs, git, make,
//! shell scripts, by the thousand.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use tracer::policy::Ruling;

use crate::{
    Test,
    harness::{Run, Scratch, on_path, program, repeats},
};

pub(crate) const TESTS: &[Test] = &[
    ("five_thousand_execs", five_thousand_execs),
    ("test_programs_that_are_deleted", test_programs_that_are_deleted),
];

/// Packages with install scripts, from folders: no registry is asked.
const PACKAGES: [&str; 4] = ["one", "two", "three", "four"];

fn run(scratch: &Scratch, script: &str) -> Result<Run> {
    let mut path = scratch.file("bin").into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let script = scratch.write("work.sh", &format!("set -eu\n{script}"))?;
    scratch
        .run(["sh".as_ref(), script.as_os_str()])
        .policy("no-aws-cli")
        .option("--quiet")
        .env("PATH", path)
        .env("HOME", scratch.path())
        .env("npm_config_cache", scratch.file("npm-cache"))
        .env("npm_config_update_notifier", "false")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .record()
}

/// A forbidden program is on PATH, all the time.
fn put_aws_on_path(scratch: &Scratch) -> Result<()> {
    scratch.folder("bin")?;
    scratch.copy(&program(scratch, "stand-in")?, "bin/aws")?;
    Ok(())
}

fn write_packages(scratch: &Scratch) -> Result<()> {
    let mut dependencies = Vec::new();
    for name in PACKAGES {
        let folder = format!("app/packages/{name}");
        scratch.folder(&folder)?;
        let scripts = r#"{"install": "node -e 0", "postinstall": "sh -c 'ls | wc -l'"}"#;
        let text = format!(r#"{{"name": "{name}", "version": "1.0.0", "scripts": {scripts}}}"#);
        scratch.write(&format!("{folder}/package.json"), &text)?;
        dependencies.push(format!(r#""{name}": "file:packages/{name}""#));
    }
    let text = format!(
        r#"{{"name": "app", "version": "1.0.0", "private": true, "dependencies": {{{}}}}}"#,
        dependencies.join(", ")
    );
    scratch.write("app/package.json", &text)?;
    let output = Command::new(on_path("npm")?)
        .args(["install", "--package-lock-only", "--offline", "--no-audit", "--no-fund"])
        .env("npm_config_cache", scratch.file("npm-cache"))
        .current_dir(scratch.file("app"))
        .output()?;
    ensure!(output.status.success(), "npm: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn write_c_project(scratch: &Scratch) -> Result<()> {
    scratch.folder("c")?;
    let mut objects = String::new();
    for number in 0..4 {
        scratch.write(
            &format!("c/part{number}.c"),
            &format!("int part{number}(void) {{ return {number}; }}\n"),
        )?;
        objects.push_str(&format!(" part{number}.o"));
    }
    scratch.write("c/main.c", "int part0(void);\nint main(void) { return part0(); }\n")?;
    let rules =
        "all: main\n\t./main\nmain: main.o PARTS\n\t$(CC) -o $@ $^\nclean:\n\trm -f *.o main\n";
    scratch.write("c/Makefile", &rules.replace(" PARTS", &objects))?;
    Ok(())
}

/// About 40 execs.
const GIT: &str = "
rm -rf repository; git init -q repository; cd repository
for file in one two three; do
    echo $file > $file; git add $file
    git -c user.name=n -c user.email=e commit -q -m $file
done
git checkout -q -b branch HEAD~1; echo other > other; git add other
git -c user.name=n -c user.email=e commit -q -m other
git -c user.name=n -c user.email=e merge -q -m merge master || \\
    git -c user.name=n -c user.email=e merge -q -m merge main
git log --oneline | wc -l; git diff --stat HEAD~1; git gc -q; git clone -q . ../clone; rm -rf ../clone
cd ..
";

/// About 50 execs.
const MAKE: &str = "make -s -C c clean; make -s -C c\n";

/// 20 execs, of which some speak of the forbidden program without running it.
const SHELL: &str = "
test \"$(expr 1 + 1)\" = 2; test \"$(echo a,b | cut -d, -f2)\" = b
printf 'aws\\nb\\n' > list; grep -c aws list; sed s/aws/b/ list | sort -u; wc -l < list
test \"$(awk 'END { print NR }' list)\" = 2; ls bin/aws; basename /opt/aws; dirname /opt/aws
env true aws; cat list | tr a b | head -n 1; tail -n 1 list; date +%s; id -u; uname -s; rm list
";

fn five_thousand_execs(scratch: &Scratch) -> Result<()> {
    put_aws_on_path(scratch)?;
    write_packages(scratch)?;
    write_c_project(scratch)?;
    let wanted = repeats(1000)? * 5;
    let shell_rounds = wanted.div_ceil(20);
    let other_rounds = (wanted / 500).max(1);
    let script = format!(
        "cd app; npm ci --offline --no-audit --no-fund; cd ..
         i=0; while [ $i -lt {other_rounds} ]; do i=$((i+1))\n{GIT}\n{MAKE}\ndone
         i=0; while [ $i -lt {shell_rounds} ]; do i=$((i+1))\n{SHELL}\ndone > /dev/null"
    );
    let run = run(scratch, &script)?;
    run.proven()?;
    run.output.exits(0)?;
    ensure!(run.story.execs >= wanted, "{} execs, not {wanted}", run.story.execs);
    for name in ["npm", "git", "make", "ld", "awk", "node"] {
        let base =
            |exec: &&tracer::record::schema::Exec| {
                exec.argv.args.iter().take(2).any(|word| {
                    Path::new(&*word.lossy()).file_name().is_some_and(|base| base == name)
                })
            };
        ensure!(run.execs().iter().any(base), "no exec of {name}");
    }
    eprintln!("  {} execs of npm, git, make and shell scripts, proven", run.story.execs);
    Ok(())
}

/// What `configure` does: compile a program, run it, delete it. Where it is gone before its content
/// could be read, that is the reason, and the only one.
fn test_programs_that_are_deleted(scratch: &Scratch) -> Result<()> {
    put_aws_on_path(scratch)?;
    on_path("cc")?;
    let rounds = repeats(1000)?.div_ceil(20);
    let line = format!(
        "i=0; while [ $i -lt {rounds} ]; do i=$((i+1))
             echo \"int main(void) {{ return $i - $i; }}\" > conftest.c
             cc -o conftest conftest.c; ./conftest; rm -f conftest conftest.c
         done"
    );
    let run = run(scratch, &line)?;
    let verdict = run.verdict.as_ref().context("there is no verdict")?;
    ensure!(verdict.overall != Ruling::Violated, "{}", run.reasons().join("\n"));
    let explained = |reason: &String| {
        reason.starts_with("conftest ")
            && reason.contains("content of the executed file is not known")
    };
    let others: Vec<_> = run.reasons().into_iter().filter(|reason| !explained(reason)).collect();
    ensure!(others.is_empty(), "{}", others.join("\n"));
    run.all_seen()?;
    Ok(())
}
