//! Where AWS's own SDK for JavaScript takes its credentials from, in the lab, with dummy keys.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use tracer::{
    policy::Ruling,
    record::schema::{CredentialAccess, DescriptorKind},
    session::{
        CredentialUse, Helper, McpTransport, Origin, Step, StepWhat, credential_uses, mcp_servers,
    },
};
use tracer_tests::lab::Lab;

use crate::{
    Test,
    harness::{Run, Scratch, Tracer, fixtures, on_path, skip},
};

pub(crate) const TESTS: &[Test] = &[
    ("names_of_variables_and_no_values", names_of_variables_and_no_values),
    ("long_environments", long_environments),
    ("standard_streams", standard_streams),
    ("stdio_servers", stdio_servers),
    ("files_that_are_opened_and_changed", files_that_are_opened_and_changed),
    ("files_that_come_into_being", files_that_come_into_being),
    ("other_catalogues", other_catalogues),
    ("sdk_environment", sdk_environment),
    ("sdk_shared_files", sdk_shared_files),
    ("sdk_single_sign_on", sdk_single_sign_on),
    ("sdk_credential_process", sdk_credential_process),
    ("sdk_web_identity", sdk_web_identity),
    ("sdk_instance_metadata", sdk_instance_metadata),
    ("claim_needs_a_list", claim_needs_a_list),
];

const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

/// What the lab's addresses stand for: this suite is about credentials, and not about names.
const ENDPOINTS: &str = r#"
[[endpoint]]
service = "bedrock-runtime"
provider = "aws"
class = "api"
ranges = ["127.10.0.1/32"]

[[endpoint]]
service = "aws-sts"
provider = "aws"
class = "credentials"
ranges = ["127.10.0.2/31"]

[[endpoint]]
service = "aws-sso"
provider = "aws"
class = "credentials"
ranges = ["127.10.0.13/32"]
"#;

const CLAIM: &str = "name = 'own-credentials'\n[[claim]]\nkind = 'credentials-in-process'\n";

/// A home of its own for the command.
fn home(scratch: &Scratch, files: &[(&str, &str)]) -> Result<PathBuf> {
    let home = scratch.file("home");
    fs::create_dir_all(&home)?;
    for (name, text) in files {
        let path = home.join(name);
        fs::create_dir_all(path.parent().context("no folder")?)?;
        fs::write(path, text)?;
    }
    Ok(home)
}

fn clean<'a>(tracer: Tracer<'a>, home: &Path) -> Tracer<'a> {
    tracer.env("HOME", home).set(|command| {
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().to_uppercase();
            if text.starts_with("AWS_") || text.contains("TOKEN") || text.contains("API_KEY") {
                command.env_remove(name);
            }
        }
    })
}

fn names_of_variables_and_no_values(scratch: &Scratch) -> Result<()> {
    let home = home(scratch, &[])?;
    let script = "AWS_PROFILE=canary-profile AWS_SESSION_TOKEN= /bin/true; /bin/true";
    let tracer = clean(scratch.run(["sh", "-c", script]), &home)
        .env("AWS_ACCESS_KEY_ID", "canary-key")
        .env("AWS_SECRET_ACCESS_KEY", "canary=secret")
        .env("ANTHROPIC_API_KEY", "canary-anthropic")
        .env("NOT_A_CREDENTIAL", "AWS_ROLE_ARN=canary");
    let run = tracer.option("-v").record()?;
    run.exits(0)?.all_seen()?;
    let sets: Vec<String> = run
        .execs()
        .iter()
        .map(|exec| exec.environment.clone().unwrap_or_default().join(" "))
        .collect();
    let keys = "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY";
    let expected = [
        format!("{keys} ANTHROPIC_API_KEY"),
        format!("{keys} AWS_PROFILE ANTHROPIC_API_KEY"),
        format!("{keys} ANTHROPIC_API_KEY"),
    ];
    ensure!(sets == expected, "{sets:?}");
    ensure!(run.execs().iter().all(|exec| exec.unread.is_empty()), "something was not read");
    // The values are nowhere: neither in the recording, nor in what tracer says.
    let recording = fs::read_to_string(&run.recording)?;
    let html = scratch.tracer(&["report", "--format", "html"]);
    let html = html.set(|command| {
        command.arg(&run.recording);
    });
    let html = String::from_utf8_lossy(&html.output()?.stdout).into_owned();
    for text in [&recording, &html, &run.output.stderr] {
        for value in ["canary-key", "canary=secret", "canary-anthropic"] {
            ensure!(!text.contains(value), "{value} is in: {text}");
        }
    }
    Ok(())
}

/// Names at every position within the pieces in which the kernel side reads, and behind long values.
fn long_environments(scratch: &Scratch) -> Result<()> {
    let home = home(scratch, &[])?;
    for filler in (240..=262).chain([4090, 100_000]) {
        let tracer = clean(scratch.run(["/bin/true"]), &home).set(|command| {
            command.env_clear().env("A", "x".repeat(filler)).env("AWS_PROFILE", "p");
            command.env("Z_AWS_ROLE_ARN", "p").env("AWS_ROLE_ARN_", "p");
        });
        let run = tracer.record()?;
        let set = run.execs()[0].environment.clone();
        ensure!(set == Some(vec!["AWS_PROFILE".to_owned()]), "{filler}: {set:?}");
    }
    let many = (0..40_000).map(|number| (format!("V{number}"), ""));
    let tracer = clean(scratch.run(["/bin/true"]), &home).set(|command| {
        command.env_clear().envs(many);
    });
    let run = tracer.record()?;
    let exec = run.execs()[0];
    ensure!(exec.unread == ["environment"], "an end that was not reached: {:?}", exec.unread);
    Ok(())
}

fn standard_streams(scratch: &Scratch) -> Result<()> {
    let script = "/bin/true </dev/null >/dev/null; /bin/echo a | /bin/cat >f; /bin/true <f >&-; \
                  /bin/true <&- >/dev/zero";
    let run = scratch.run(["sh", "-c", script]).record()?;
    use DescriptorKind::{Closed, Device, File, Null, Pipe};
    let mut kinds = Vec::new();
    for exec in &run.execs()[1..] {
        let stdio = exec.stdio.as_ref().context("not read")?;
        kinds.push((exec.argv.args[0].lossy().into_owned(), stdio.input.kind, stdio.output.kind));
    }
    let (echo, cat): (Vec<_>, Vec<_>) = kinds.iter().partition(|(name, ..)| name == "/bin/echo");
    ensure!(echo == [&("/bin/echo".to_owned(), Null, Pipe)], "{kinds:?}");
    let rest = [(Null, Null), (Pipe, File), (File, Closed), (Closed, Device)];
    let found: Vec<_> = cat.iter().map(|(_, input, output)| (*input, *output)).collect();
    ensure!(found == rest, "{kinds:?}");
    let of = |name: &str| run.exec(name).ok().and_then(|exec| exec.stdio.clone());
    let (writer, reader) = (of("echo").context("echo")?, of("cat").context("cat")?);
    ensure!(writer.output.inode == reader.input.inode, "one pipe, two names");
    Ok(())
}

fn stdio_servers(scratch: &Scratch) -> Result<()> {
    on_path("node")?;
    let server = scratch.file("weather-mcp.mjs");
    fs::write(&server, "process.stdin.on('data', () => process.exit(0));")?;
    let client = scratch.file("client.mjs");
    fs::write(
        &client,
        "import { spawn, execFileSync } from 'node:child_process';\n\
         execFileSync('true', ['weather-mcp']);\n\
         const server = spawn('sh', ['-c', `exec node ${process.argv[2]}`]);\n\
         server.stdin.write('{}');\n",
    )?;
    let run = scratch.run([Path::new("node"), &client, &server]).record()?;
    run.exits(0)?;
    let servers = mcp_servers(&run.story);
    let [server] = &servers[..] else { anyhow::bail!("{servers:?}") };
    ensure!(server.name == "weather" && server.client == run.story.root(), "{server:?}");
    ensure!(matches!(server.by, McpTransport::Stdio { .. }), "{server:?}");
    Ok(())
}

/// Source, access and file name of each record, in order.
fn file_lines(run: &Run) -> Vec<String> {
    let line = |file: &tracer::record::schema::CredentialFile| {
        let name = String::from_utf8_lossy(file.path.base_name()).into_owned();
        let access = match file.access {
            CredentialAccess::Opened => "opened",
            CredentialAccess::Changed => "changed",
        };
        let who = file.process.map_or("?".into(), |process| run.story.label(process));
        let who = who.split(' ').next().unwrap_or_default().to_owned();
        format!("{who} {access} {name}: {}", file.source)
    };
    run.story.credential_files.iter().map(line).collect()
}

fn files_that_are_opened_and_changed(scratch: &Scratch) -> Result<()> {
    let home = home(
        scratch,
        &[
            (".aws/config", ""),
            (".aws/sso/cache/a.json", ""),
            (".aws/other", ""),
            ("elsewhere", ""),
        ],
    )?;
    let script = "cat ~/.aws/config ~/.aws/other ~/.aws/sso/cache/a.json; sleep 0.05; \
                  head ~/elsewhere; sleep 0.05; tee ~/.aws/credentials; sleep 0.05; \
                  mv ~/.aws/other ~/.aws/config; sleep 0.05; cut -c1 ~/.aws/config; \
                  ls -l ~/.aws/credentials";
    let tracer = clean(scratch.run(["sh", "-c", script]), &home)
        .env("AWS_SHARED_CREDENTIALS_FILE", home.join("elsewhere"));
    let run = tracer.record()?;
    let lines = file_lines(&run);
    for expected in [
        "cat opened config: shared files",
        "cat opened a.json: single sign-on",
        "head opened elsewhere: shared files",
        "tee opened credentials: shared files",
        "tee changed credentials: shared files",
        "mv changed config: shared files",
        "cut opened config: shared files",
    ] {
        ensure!(lines.iter().any(|line| line == expected), "no `{expected}` in {lines:#?}");
    }
    ensure!(
        !lines.iter().any(|line| line.contains("other") || line.starts_with("ls")),
        "{lines:?}"
    );
    Ok(())
}

fn files_that_come_into_being(scratch: &Scratch) -> Result<()> {
    let home = home(scratch, &[])?;
    let script = "mkdir ~/.aws; sleep 0.2; touch ~/.aws/credentials; cat ~/.aws/credentials";
    let run = clean(scratch.run(["sh", "-c", script]), &home).record()?;
    let lines = file_lines(&run);
    ensure!(lines.iter().any(|line| line.starts_with("mkdir changed")), "{lines:?}");
    ensure!(lines.iter().any(|line| line == "cat opened credentials: shared files"), "{lines:?}");
    let end = run.end()?.credentials.clone().context("no counts")?;
    let says = |gap: &tracer::record::schema::CredentialGap| gap.why.contains("came into being");
    ensure!(end.gaps.iter().any(says), "{end:?}");
    Ok(())
}

fn other_catalogues(scratch: &Scratch) -> Result<()> {
    let home = home(scratch, &[("secrets/key", "")])?;
    let catalogue = scratch.file("more.toml");
    let longest = "K".repeat(63);
    fs::write(
        &catalogue,
        format!(
            "[[credential-source]]\nname = 'ours'\nprovider = 'us'\nkind = 'file'\n\
             files = ['~/secrets']\nvariables = ['OUR_KEY', '{longest}']\n"
        ),
    )?;
    let run = clean(scratch.run(["cat", "secrets/key"]), &home)
        .env("OUR_KEY", "x")
        .env(&longest, "x")
        .env(&format!("{longest}K"), "x")
        .option("--catalogue")
        .option(&catalogue)
        .set(|command| {
            command.current_dir(&home);
        })
        .record()?;
    ensure!(file_lines(&run) == ["cat opened key: ours"], "{:?}", file_lines(&run));
    ensure!(run.execs()[0].environment == Some(vec!["OUR_KEY".into(), longest]));
    fs::write(&catalogue, "[[credential-source]]\nname = 'x'\nprovider = 'y'\nkind = 'file'\n")?;
    let output = scratch.run(["true"]).option("--catalogue").option(&catalogue).output()?;
    output.exits(2)?.says("`files` or `redirect`")?;
    Ok(())
}

/// One call of Bedrock by the SDK in the lab.
struct Call {
    run: Run,
    uses: Vec<CredentialUse>,
}

impl Call {
    fn aws(&self) -> Result<&CredentialUse> {
        let root = self.run.story.root();
        let own = |one: &&CredentialUse| Some(one.process) == root && one.provider == "aws";
        self.uses.iter().find(own).with_context(|| format!("nothing of AWS: {:?}", self.uses))
    }

    fn has(&self, fits: impl Fn(&Step) -> bool) -> Result<&Self> {
        let own = self.aws()?;
        ensure!(own.steps.iter().any(fits), "{own:#?}");
        Ok(self)
    }

    fn opened(&self, source: &str) -> Result<&Self> {
        self.has(|step| matches!(&step.what, StepWhat::File { source: name, .. } if name == source))
    }

    fn asked(&self, service: &str) -> Result<&Self> {
        self.has(|step| {
            matches!(&step.what, StepWhat::Service { service: name, established: true } if name == service)
        })
    }

    fn resolved_from(&self, source: &str) -> Result<&Self> {
        let origin = &self.aws()?.origin;
        let right = matches!(origin, Origin::Resolved { source: name, .. } if name == source);
        ensure!(right, "{origin:?}; {}", String::from_utf8_lossy(&self.run.output.stdout));
        Ok(self)
    }
}

fn call(
    scratch: &Scratch,
    lab: &Lab,
    home: &Path,
    claim: &str,
    environment: &[(&str, &str)],
) -> Result<Call> {
    on_path("node")?;
    let agent = fixtures().join("agent");
    if !agent.join("node_modules").is_dir() {
        return skip("the agent's packages are not installed; `cargo xtask setup` does that");
    }
    let (catalogue, policy) = (scratch.file("endpoints.toml"), scratch.file("own.toml"));
    fs::write(&catalogue, ENDPOINTS)?;
    fs::write(&policy, claim)?;
    let tracer = scratch.run([Path::new("node"), &agent.join("call.mjs")]);
    let mut tracer = tracer
        .by(|tracer| lab.command(tracer))
        .option("--catalogue")
        .option(&catalogue)
        .policy(&policy)
        .env("HOME", home);
    for (name, value) in environment {
        tracer = tracer.env(name, value);
    }
    let run = tracer.record()?;
    let uses = credential_uses(&run.story);
    Ok(Call { run, uses })
}

const NO_METADATA: (&str, &str) = ("AWS_EC2_METADATA_DISABLED", "true");

fn sdk_environment(scratch: &Scratch) -> Result<()> {
    let (lab, home) = (Lab::start()?, home(scratch, &[])?);
    let keys = [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", SECRET)];
    let call = call(scratch, &lab, &home, CLAIM, &keys)?;
    call.resolved_from("environment")?.run.rules(Ruling::Proven)?;
    Ok(())
}

fn sdk_shared_files(scratch: &Scratch) -> Result<()> {
    let lab = Lab::start()?;
    let text = format!("[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n");
    let home = home(scratch, &[(".aws/credentials", &text)])?;
    let call = call(scratch, &lab, &home, CLAIM, &[])?;
    call.opened("shared files")?.resolved_from("shared files")?.run.rules(Ruling::Proven)?;
    // A profile is asked for instead of keys that are set too.
    let call = self::call(
        scratch,
        &lab,
        &home,
        CLAIM,
        &[
            ("AWS_PROFILE", "default"),
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
        ],
    )?;
    call.resolved_from("shared files")?;
    Ok(())
}

fn sdk_single_sign_on(scratch: &Scratch) -> Result<()> {
    let lab = Lab::start()?;
    let config = "[default]\nsso_start_url = https://lab.example/start\nsso_region = us-east-1\n\
                  sso_account_id = 123456789012\nsso_role_name = lab\n";
    // The cache's file is called by the SHA-1 of the start address.
    let token = "{\"startUrl\": \"https://lab.example/start\", \"region\": \"us-east-1\", \
                 \"accessToken\": \"EXAMPLE\", \"expiresAt\": \"2999-01-01T00:00:00Z\"}";
    let name = ".aws/sso/cache/9c2aeab0a4ffcf1dd78bf3efa1a79ccf42a9b8c6.json";
    let home = home(scratch, &[(".aws/config", config), (name, token)])?;
    let sum = std::process::Command::new("sh")
        .args(["-c", "printf %s https://lab.example/start | sha1sum"])
        .output()?;
    let sum = String::from_utf8(sum.stdout)?;
    let sum = sum.split_whitespace().next().context("no sha1sum")?;
    fs::rename(home.join(name), home.join(format!(".aws/sso/cache/{sum}.json")))?;
    let call = call(scratch, &lab, &home, CLAIM, &[NO_METADATA])?;
    call.opened("shared files")?.opened("single sign-on")?.asked("aws-sso")?;
    call.resolved_from("single sign-on")?.run.rules(Ruling::Proven)?;
    Ok(())
}

fn sdk_credential_process(scratch: &Scratch) -> Result<()> {
    let lab = Lab::start()?;
    let keys = format!(
        "{{\"Version\": 1, \"AccessKeyId\": \"{KEY}\", \"SecretAccessKey\": \"{SECRET}\"}}"
    );
    let script = scratch.script("keys.sh", &format!("#!/bin/sh\necho '{keys}'\n"))?;
    let config = format!("[default]\ncredential_process = \"{}\" --for lab\n", script.display());
    let home = home(scratch, &[(".aws/config", &config)])?;
    let call = call(scratch, &lab, &home, CLAIM, &[NO_METADATA])?;
    let origin = &call.aws()?.origin;
    let helper = matches!(origin, Origin::Helper { helper: Helper::CredentialProcess, .. });
    ensure!(helper, "{origin:?}; {}", String::from_utf8_lossy(&call.run.output.stdout));
    call.run.rules(Ruling::Violated)?.because(&["credential_process"])?;
    ensure!(!fs::read_to_string(&call.run.recording)?.contains(SECRET));
    Ok(())
}

fn sdk_web_identity(scratch: &Scratch) -> Result<()> {
    let lab = Lab::start()?;
    let home = home(scratch, &[("token", "EXAMPLE")])?;
    let token = home.join("token").to_string_lossy().into_owned();
    let role = "arn:aws:iam::123456789012:role/lab";
    let environment =
        [("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()), ("AWS_ROLE_ARN", role), NO_METADATA];
    let call = call(scratch, &lab, &home, CLAIM, &environment)?;
    call.opened("web identity")?.asked("aws-sts")?;
    call.resolved_from("web identity")?.run.rules(Ruling::Proven)?;
    Ok(())
}

/// Ends with the test.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn sdk_instance_metadata(scratch: &Scratch) -> Result<()> {
    const ADDRESS: &str = "169.254.169.254";
    on_path("ip")?;
    let (lab, home) = (Lab::start()?, home(scratch, &[])?);
    let added = lab.command("ip").args(["address", "add", ADDRESS, "dev", "lo"]).status()?;
    ensure!(added.success(), "the address was refused");
    let mut command = lab.command("node");
    command.arg(fixtures().join("lab/imds.mjs")).arg(ADDRESS);
    let mut service = Service(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
    let mut ready = String::new();
    BufReader::new(service.0.stdout.take().context("no output")?).read_line(&mut ready)?;
    ensure!(ready == "ready\n", "it says {ready:?}");
    let call = call(scratch, &lab, &home, CLAIM, &[])?;
    call.asked("aws-imds")?.resolved_from("instance metadata")?.run.rules(Ruling::Proven)?;
    Ok(())
}

/// Another program ran before the call: it may have handed over anything, unless it is listed.
fn claim_needs_a_list(scratch: &Scratch) -> Result<()> {
    let (lab, home) = (Lab::start()?, home(scratch, &[])?);
    let keys = [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", SECRET)];
    let preload = scratch.file("preload.cjs");
    fs::write(&preload, "require('node:child_process').execFileSync('sort', ['/dev/null'])")?;
    let options = format!("--require={}", preload.display());
    let environment = [keys[0], keys[1], ("NODE_OPTIONS", options.as_str())];
    let first = call(scratch, &lab, &home, CLAIM, &environment)?;
    first.run.rules(Ruling::Inconclusive)?.because(&["sort", "ran before its last call"])?;
    let listed = format!("{CLAIM}programs = ['sort']\n");
    call(scratch, &lab, &home, &listed, &environment)?.run.rules(Ruling::Proven)?;
    Ok(())
}
