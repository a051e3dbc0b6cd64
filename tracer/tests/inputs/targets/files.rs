//! Files that tracer is given, and files of programs.

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use tracer::{
    catalogue::Catalogue,
    evidence::{self, PrivateKey, PublicKey},
    policy,
    run::CodeFile,
};

use super::in_a_file;

/// A policy file: one that is taken can be explained.
pub(super) fn policy_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(policy) = policy::parse(text, "bytes") {
        assert!(!policy.claims.is_empty(), "a policy without claims was taken");
        let _ = policy::check_names(&policy, Catalogue::embedded());
        policy::explain(&policy, Catalogue::embedded());
    }
}

/// A catalogue file: what is taken can be asked.
pub(super) fn catalogue_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(catalogue) = Catalogue::with_texts([("bytes", text)]) {
        assert!(catalogue.has_program("aws"), "the embedded entries are gone");
        catalogue.hand_off_names();
    }
}

fn path_of(file: &OwnedFd) -> PathBuf {
    Path::new("/proc/self/fd").join(file.as_raw_fd().to_string())
}

/// A program or a library (ELF).
pub(super) fn code_file(bytes: &[u8]) {
    let file = in_a_file(bytes);
    for is_program in [true, false] {
        CodeFile::read(&path_of(&file), is_program, Catalogue::embedded());
    }
}

/// A file with a key of either kind.
pub(super) fn key_file(bytes: &[u8]) {
    let file = in_a_file(bytes);
    let path = path_of(&file);
    if let Ok(key) = PrivateKey::load(&path) {
        key.public().id();
    }
    if let Ok(key) = PublicKey::load(&path) {
        key.id();
    }
}

/// A signed statement: nothing else is taken for one than what was signed, since nobody who changes it has
/// the key.
pub(super) fn envelope(bytes: &[u8]) {
    const KEY: &str = include_str!("../../golden/keys/spki.pem");
    const SIGNED: &[u8] = include_bytes!("../../../../tests/fuzz/corpus/envelope/signed");
    let key = PublicKey::load(&path_of(&in_a_file(KEY.as_bytes()))).expect("the key is good");
    let open = |bytes| evidence::open(&path_of(&in_a_file(bytes)), &key);
    if let Ok(statement) = open(bytes) {
        assert_eq!(statement, open(SIGNED).expect("it was signed"), "this was never signed");
    }
}
