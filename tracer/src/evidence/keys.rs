//! Ed25519 keys, from the files people have: PKCS#8 and SPKI PEM (`openssl genpkey`) and OpenSSH
//! (`ssh-keygen -t ed25519`).

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use ed25519_dalek::{
    Signature, Signer as _, SigningKey, VerifyingKey,
    pkcs8::{DecodePrivateKey as _, DecodePublicKey as _, EncodePublicKey as _},
};
use sha2::{Digest as _, Sha256};
use ssh_key::private::KeypairData;
use zeroize::Zeroizing;

use crate::record::hex;

/// Why a file is not used as a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read the key {path}: {source}")]
    Io { path: String, source: io::Error },
    #[error("{path} cannot be used as a key: {detail}")]
    Unusable { path: String, detail: String },
}

#[derive(Debug)]
pub struct PrivateKey(SigningKey);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// Reads a key file and makes a key of its text, which does not stay in memory.
fn load<T>(path: &Path, key: impl FnOnce(&str) -> Result<T, String>) -> Result<T, KeyError> {
    let name = || path.display().to_string();
    // No key is longer, and a device may have no end.
    const LONGEST: u64 = 64 * 1024;
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST as usize + 1));
    let read = File::open(path).and_then(|file| file.take(LONGEST).read_to_end(&mut bytes));
    read.map_err(|source| KeyError::Io { path: name(), source })?;
    let text = str::from_utf8(&bytes).map_err(|_| {
        let detail = "it is no text; `openssl pkey -inform DER` makes a PEM of a key in DER".into();
        KeyError::Unusable { path: name(), detail }
    })?;
    key(text).map_err(|detail| KeyError::Unusable { path: name(), detail })
}

impl PrivateKey {
    pub fn load(path: &Path) -> Result<PrivateKey, KeyError> {
        load(path, PrivateKey::parse)
    }

    fn parse(text: &str) -> Result<PrivateKey, String> {
        if text.contains("-----BEGIN PRIVATE KEY-----") {
            return SigningKey::from_pkcs8_pem(text.trim())
                .map(PrivateKey)
                .map_err(|error| format!("it is no Ed25519 key in PKCS#8 PEM: {error}"));
        }
        if text.contains("-----BEGIN OPENSSH PRIVATE KEY-----") {
            let key = ssh_key::PrivateKey::from_openssh(text.trim())
                .map_err(|error| format!("it is no OpenSSH key: {error}"))?;
            if key.is_encrypted() {
                return Err("it has a passphrase; give a key without one \
                            (`ssh-keygen -p` makes a copy into one)"
                    .into());
            }
            let KeypairData::Ed25519(pair) = key.key_data() else {
                return Err(format!(
                    "it is an {} key, and only Ed25519 keys sign",
                    key.algorithm()
                ));
            };
            return Ok(PrivateKey::from_seed(pair.private.to_bytes()));
        }
        Err(if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
            "it has a passphrase; give a key without one (`openssl pkey` writes one)".into()
        } else if PublicKey::parse(text).is_ok() {
            "it is a public key, and signing needs the private one".into()
        } else {
            "it is neither a PKCS#8 PEM nor an OpenSSH private key; \
             `openssl genpkey -algorithm ed25519` makes one"
                .into()
        })
    }

    pub(super) fn from_seed(seed: [u8; 32]) -> PrivateKey {
        PrivateKey(SigningKey::from_bytes(&seed))
    }

    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl PublicKey {
    pub fn load(path: &Path) -> Result<PublicKey, KeyError> {
        load(path, PublicKey::parse)
    }

    fn parse(text: &str) -> Result<PublicKey, String> {
        if text.contains("-----BEGIN PUBLIC KEY-----") {
            return VerifyingKey::from_public_key_pem(text.trim())
                .map(PublicKey)
                .map_err(|error| format!("it is no Ed25519 public key in PEM: {error}"));
        }
        if text.contains("PRIVATE KEY-----") {
            return Err("it is a private key, and checking needs only the public one: \
                        `openssl pkey -pubout` and `ssh-keygen -y` print it"
                .into());
        }
        let key = ssh_key::PublicKey::from_openssh(text.trim())
            .map_err(|_| "it is neither a PEM nor an OpenSSH public key".to_owned())?;
        let bytes = key.key_data().ed25519().ok_or_else(|| {
            format!("it is an {} key, and only Ed25519 keys sign", key.algorithm())
        })?;
        VerifyingKey::from_bytes(&bytes.0).map(PublicKey).map_err(|error| error.to_string())
    }

    /// SHA-256 of the key in DER (SubjectPublicKeyInfo), hexadecimal: the same whatever file the key
    /// came from.
    pub fn id(&self) -> String {
        #[expect(clippy::expect_used, reason = "32 bytes always fit into this DER structure")]
        let der = self.0.to_public_key_der().expect("an Ed25519 key has a DER form");
        hex(&Sha256::digest(der.as_bytes()))
    }

    /// Strict: of the several encodings some signatures have, one is accepted.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature)
            .is_ok_and(|signature| self.0.verify_strict(message, &signature).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made for this test by `openssl genpkey` and `ssh-keygen`; they guard nothing.
    const PKCS8: &str = include_str!("../../tests/golden/keys/pkcs8.pem");
    const SPKI: &str = include_str!("../../tests/golden/keys/spki.pem");
    const OPENSSH: &str = include_str!("../../tests/golden/keys/openssh");
    const OPENSSH_PUBLIC: &str = include_str!("../../tests/golden/keys/openssh.pub");
    const OPENSSH_LOCKED: &str = include_str!("../../tests/golden/keys/openssh-locked");
    const RSA: &str = include_str!("../../tests/golden/keys/rsa.pem");

    #[test]
    fn both_formats_give_the_pair_that_belongs_together() {
        for (private, public) in [(PKCS8, SPKI), (OPENSSH, OPENSSH_PUBLIC)] {
            let (private, public) =
                (PrivateKey::parse(private).unwrap(), PublicKey::parse(public).unwrap());
            assert_eq!(private.public(), public);
            assert_eq!(public.id().len(), 64);
            let mut signature = private.sign(b"message");
            assert!(public.verify(b"message", &signature));
            assert!(!public.verify(b"massage", &signature));
            signature[63] ^= 0x80;
            assert!(!public.verify(b"message", &signature));
        }
    }

    #[test]
    fn other_files_say_why_they_are_no_keys() {
        let private = |text: &str, says: &str| {
            let error = PrivateKey::parse(text).unwrap_err();
            assert!(error.contains(says), "{error}");
        };
        private(SPKI, "public key");
        private(OPENSSH_PUBLIC, "public key");
        private(OPENSSH_LOCKED, "passphrase");
        private(RSA, "no Ed25519 key");
        private("-----BEGIN ENCRYPTED PRIVATE KEY-----", "passphrase");
        private("hello", "openssl genpkey");
        let public = |text: &str, says: &str| {
            let error = PublicKey::parse(text).unwrap_err();
            assert!(error.contains(says), "{error}");
        };
        public(PKCS8, "private key");
        public(OPENSSH, "private key");
        public("hello", "neither");
    }
}
