//! A certificate authority made afresh, and one certificate of it for all the lab's host names.

use std::fs::{OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

pub(super) fn certificate_authority(root: &Path) -> PathBuf {
    root.join("ca.pem")
}

pub(super) fn server_certificate(root: &Path) -> PathBuf {
    root.join("server.pem")
}

pub(super) fn server_key(root: &Path) -> PathBuf {
    root.join("server.key")
}

/// Writes the three files. The authority's own key is forgotten: nothing else will be signed.
pub(super) fn write(root: &Path, names: Vec<String>) -> Result<()> {
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "tracer lab, not for anything else");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    // Python's strict verification wants the usages and the key identifiers.
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)
        .context("cannot make the lab's certificate authority")?;

    let mut server = CertificateParams::new(names).context("a host name is not ASCII")?;
    server.distinguished_name.push(DnType::CommonName, "tracer lab server");
    server.use_authority_key_identifier_extension = true;
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let server = server.signed_by(&key, &authority).context("cannot make the certificate")?;

    write_file(&certificate_authority(root), &authority.pem(), 0o644)?;
    write_file(&server_certificate(root), &server.pem(), 0o644)?;
    write_file(&server_key(root), &key.serialize_pem(), 0o600)
}

pub(super) fn write_file(path: &Path, text: &str, mode: u32) -> Result<()> {
    // The mode is set again because the umask takes bits away at creation.
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| {
            file.set_permissions(Permissions::from_mode(mode))?;
            file.write_all(text.as_bytes())
        })
        .with_context(|| format!("cannot write {}", path.display()))
}
