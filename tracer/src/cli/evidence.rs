//! Checking and signing recordings.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tracer verify session.jsonl
  tracer verify --policy no-shell-outs session.jsonl
  tracer verify --key public.pem session.jsonl

The verdict that is written in the recording is not trusted: it is computed again from the events \
and counters. With --key, the recording must also be the one that the key's owner signed.

Exit codes: 0 intact and proven (or intact, without a policy), 10 violated, 11 inconclusive, not \
intact or not signed by the key, 125 not readable")]
pub struct Verify {
    /// Judge by these policies instead of those the recording was made with; repeatable
    #[arg(short, long = "policy", value_name = "NAME|FILE")]
    pub policies: Vec<String>,
    /// Demand a signature by this Ed25519 public key (PEM or OpenSSH)
    #[arg(short, long, value_name = "KEY")]
    pub key: Option<PathBuf>,
    /// Where the signed statement is, if not in RECORDING.intoto.json
    #[arg(short, long, value_name = "FILE", requires = "key")]
    pub attestation: Option<PathBuf>,
    /// A recording; `-` is standard input
    #[arg(value_name = "RECORDING")]
    pub recording: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  openssl genpkey -algorithm ed25519 -out private.pem
  openssl pkey -in private.pem -pubout -out public.pem
  tracer sign --key private.pem session.jsonl
  tracer verify --key public.pem session.jsonl

Writes RECORDING.intoto.json (mode 0600): an in-toto statement about the recording, by its SHA-256 \
and with its completeness statement, in a DSSE envelope. Signing a file says that you vouch for it as \
it is now; `tracer run --sign` signs what tracer wrote, whatever happened to the file since.

Exit codes: 0 signed, 11 not signed because it is damaged or has no end, 125 not readable or not \
writable")]
pub struct Sign {
    /// An Ed25519 private key without a passphrase (PKCS#8 PEM or OpenSSH)
    #[arg(short, long, value_name = "KEY")]
    pub key: PathBuf,
    /// Replace a statement that is there
    #[arg(long)]
    pub force: bool,
    /// A recording
    #[arg(value_name = "RECORDING")]
    pub recording: PathBuf,
}
