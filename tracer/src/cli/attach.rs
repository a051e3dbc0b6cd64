//! What is to be joined.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{CatalogueFiles, Debug, Writing};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo tracer attach --pid 4711 --output session.jsonl
  sudo tracer attach --container 3f2a --policy no-telemetry --duration 10m -o session.jsonl
  sudo tracer attach --cgroup /sys/fs/cgroup/system.slice/agent.service --from-arming -p mine.toml
  sudo tracer attach --pod 0f2b1c1e-9d2e-4a7c-8f52-3a1f6a1c0d11 -q -o session.jsonl
  sudo tracer attach --pid 4711 --http --duration 1m -o calls.jsonl
  sudo tracer attach --host --duration 24h -q -o host.jsonl --rotate 100M

Tracing ends when everything that was joined has ended, when the time is over, or with SIGINT, SIGTERM, \
SIGHUP (unless it is ignored, as behind nohup) or SIGQUIT; the recording gets its last line each time. What was joined goes on.

What ran before tracer came is unknown, and so is whose some sockets are: claims are violated or \
inconclusive, never proven; for a proof, have `tracer run` start the command. --from-arming limits them to what happens from then on. \
Claims over programs are inconclusive even then: nothing counts execs independently, and what is mapped as \
code is not watched.

Exit codes:
  0 the end of tracing was reached, or with a policy: proven
  10 violated, 11 inconclusive, 125 tracer itself failed, 2 wrong usage")]
pub struct Attach {
    #[command(flatten)]
    pub target: AttachTarget,
    /// Stop after this time: a number and s, m or h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Judge only what happens from when tracer has found all running processes; the verdict says so
    #[arg(long, requires = "policies")]
    pub from_arming: bool,
    /// Judge by a built-in policy or a policy file; repeatable
    #[arg(short, long = "policy", value_name = "NAME|FILE")]
    pub policies: Vec<String>,
    #[command(flatten)]
    pub catalogue: CatalogueFiles,
    /// Write the recording here (mode 0600); `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace what is in the output file. With --rotate, also remove the files of an earlier recording beside
    /// it: FILE.1, FILE.2 and so on
    #[arg(long, requires = "output")]
    pub force: bool,
    #[command(flatten)]
    pub writing: Writing,
    /// Record failed execs too, whatever that costs other processes on this kernel (`tracer doctor`
    /// says what); a policy with `attempts = true` does so by itself
    #[arg(long)]
    pub attempts: bool,
    /// Record calls by HTTP, also inside TLS (OpenSSL of Node, python, curl and others), which makes
    /// each call of SSL_read and SSL_write slower in other processes too (`tracer doctor` says how).
    /// Of connections that are open already, calls of HTTP/1 inside TLS are recorded from the next one on that begins,
    /// and others are not; of URLs and headers, what may be a secret is not recorded
    #[arg(long)]
    pub http: bool,
    /// Record the model and the version of the API that requests of AI services name, too. They stand
    /// in bodies, of which nothing else is recorded
    #[arg(long, requires = "http")]
    pub http_fields: bool,
    /// No summary
    #[arg(short, long)]
    pub quiet: bool,
    /// The whole report instead of the summary
    #[arg(short, long, conflicts_with = "quiet")]
    pub verbose: bool,
    #[command(flatten)]
    pub debug: Debug,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct AttachTarget {
    /// A process and its descendants
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Option<u32>,
    /// Who is in a cgroup or below it, and who joins it
    #[arg(long, value_name = "DIR")]
    pub cgroup: Option<PathBuf>,
    /// A container of docker, containerd, CRI-O, podman, runc or crun, by the beginning of its ID
    #[arg(long, value_name = "ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub container: Option<String>,
    /// A pod of Kubernetes, by its UID: its containers, also those that start later
    #[arg(long, value_name = "UID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub pod: Option<String>,
    /// Every process of this machine that tracer can see
    #[arg(long)]
    pub host: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|last: char| !last.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| "it must be a number and s, m or h")?;
    let seconds = match &text[digits.len()..] {
        "s" => Some(number),
        "m" => number.checked_mul(60),
        "h" => number.checked_mul(3600),
        _ => return Err("it must be a number and s, m or h".into()),
    };
    // What a clock can be set to, with some room.
    const LONGEST_S: u64 = 10 * 365 * 24 * 3600;
    match seconds {
        Some(seconds) if (1..=LONGEST_S).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        Some(_) | None => Err("it must be between 1s and ten years".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        let check = |text: &str, seconds: Option<u64>| {
            assert_eq!(duration(text).ok(), seconds.map(Duration::from_secs), "{text}");
        };
        check("90s", Some(90));
        check("10m", Some(600));
        check("24h", Some(86_400));
        for wrong in [
            "",
            "5",
            "0s",
            "h",
            "-1s",
            "1d",
            "1.5h",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            check(wrong, None);
        }
    }
}
