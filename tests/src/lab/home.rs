//! What a command inside the lab finds: a home with dummy AWS keys, and the environment.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, Result};

use super::authority::{certificate_authority, write_file};

/// The example keys of AWS's own documentation: valid in form, of no account.
const CREDENTIALS: &str = "\
[default]
aws_access_key_id = AKIAIOSFODNN7EXAMPLE
aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY
";
const CONFIG: &str = "\
[default]
region = us-east-1
output = json
";

pub(super) fn path(root: &Path) -> PathBuf {
    root.join("home")
}

/// Writes the home, owned by the user behind sudo if there is one, and a directory for
/// temporary files.
pub(super) fn write(root: &Path) -> Result<()> {
    let home = path(root);
    let aws = home.join(".aws");
    let temporary = root.join("tmp");
    for (folder, mode) in [(&home, 0o755), (&aws, 0o755), (&temporary, 0o1777)] {
        fs::create_dir(folder)
            .and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(mode)))
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let files = [aws.join("credentials"), aws.join("config")];
    write_file(&files[0], CREDENTIALS, 0o600)?;
    write_file(&files[1], CONFIG, 0o600)?;
    let id = |name: &str| env::var(name).ok().and_then(|text| text.parse().ok());
    if let Some(uid) = id("SUDO_UID") {
        for path in files.iter().chain([&home, &aws]) {
            chown(path, Some(uid), id("SUDO_GID"))
                .with_context(|| format!("cannot give {} to user {uid}", path.display()))?;
        }
    }
    Ok(())
}

/// Variables of the caller that would lead a command to other keys, endpoints or a proxy.
pub(super) fn is_foreign(name: &OsStr) -> bool {
    let name = name.to_string_lossy().to_ascii_uppercase();
    name.starts_with("AWS_") || name.starts_with("ANTHROPIC_") || name.ends_with("_PROXY")
}

pub(super) fn environment(root: &Path, workspace: &Path) -> Vec<(&'static str, OsString)> {
    let authority = certificate_authority(root).into_os_string();
    let mut path = workspace.join("target/tools/awscli/bin").into_os_string();
    // An entry with a colon in its name cannot be in PATH at all; the rest is kept as it is.
    if let Some(callers) = env::var_os("PATH") {
        path.push(":");
        path.push(callers);
    }
    vec![
        ("HOME", self::path(root).into_os_string()),
        ("TMPDIR", root.join("tmp").into_os_string()),
        ("PATH", path),
        ("NODE_EXTRA_CA_CERTS", authority.clone()),
        ("AWS_CA_BUNDLE", authority.clone()),
        ("SSL_CERT_FILE", authority.clone()),
        ("REQUESTS_CA_BUNDLE", authority.clone()),
        ("CURL_CA_BUNDLE", authority),
        ("AWS_REGION", "us-east-1".into()),
        ("AWS_DEFAULT_REGION", "us-east-1".into()),
        ("ANTHROPIC_API_KEY", "sk-ant-EXAMPLE-not-a-key".into()),
    ]
}
