//! A Python environment of our own, for tests that want somebody else's opinion, by what shares no code with
//! what they check: a JSON Schema validator, a verifier of signed statements, the schema of Kubernetes, and
//! of OpenTelemetry a decoder, the names of attributes and a collector (rotel). And two things
//! that Python's index has and Debian has not: a program that calls servers by rustls, and OpenSSL 1.1.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use super::stamp::Stamp;
use crate::{
    command::{self, IfFails},
    layout::Layout,
};

const PACKAGES: [&str; 8] = [
    "jsonschema==4.26.0",
    "securesystemslib==1.6.0",
    "cryptography==50.0.2",
    "kubernetes-validate==1.37.0",
    "opentelemetry-proto==1.45.2",
    "opentelemetry-semantic-conventions==0.66b2",
    "rotel==0.0.1a15",
    "uv==0.13.9",
];

/// The last but one version that brings OpenSSL 1.1, in a folder of its own.
const WITH_OPENSSL: (&str, &str) = ("psycopg2-binary==2.9.3", "psycopg2_binary.libs");

const IF_FAILS: IfFails<'static> = IfFails {
    it_means: "no schema, signature, manifest and log record is checked independently, and rustls and \
               OpenSSL 1.1 are not tried; those tests are skipped",
    remedy: "install Python 3.9 or later with its venv module (Debian: python3-venv) and check \
             that pip reaches its index",
};

pub(crate) fn find_or_install(layout: &Layout) -> Result<()> {
    let folder = layout.tools().join("python");
    let stamp =
        Stamp::new(folder.join(".stamp"), format!("{}\n{}", PACKAGES.join("\n"), WITH_OPENSSL.0));
    if stamp.is_current(&folder.join("bin/python3")) {
        eprintln!("ok: Python with {}", PACKAGES.join(", "));
        return Ok(());
    }
    eprintln!("setup: install {} for Python", PACKAGES.join(", "));
    let mut venv = command::program(layout, "python3");
    command::capture(venv.args(["-m", "venv", "--clear"]).arg(&folder), IF_FAILS)?;
    let mut pip = command::program(layout, folder.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES);
    command::capture(&mut pip, IF_FAILS)?;
    openssl(layout, &folder)?;
    stamp.write()
}

/// Takes the libraries out of a package for an old Python, which is not installed.
fn openssl(layout: &Layout, python: &Path) -> Result<()> {
    let (package, libraries) = WITH_OPENSSL;
    let unpacked = python.join("unpacked");
    let mut pip = command::program(layout, python.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary=:all:", "--python-version=3.9", "--target"])
        .arg(&unpacked)
        .arg(package);
    command::capture(&mut pip, IF_FAILS)?;
    let to = layout.tools().join("openssl-1.1");
    if to.exists() {
        fs::remove_dir_all(&to).with_context(|| format!("cannot remove {}", to.display()))?;
    }
    fs::rename(unpacked.join(libraries), &to)
        .with_context(|| format!("{package} has no {libraries}"))?;
    fs::remove_dir_all(&unpacked).with_context(|| format!("cannot remove {}", unpacked.display()))
}
