//! Rules that the exec hook enforces.
//!
//! A name is looked up by its hash: 64 bits of FNV-1a, which both sides compute here. Two names with
//! one hash would both be forbidden; of names nobody chose for that, it takes billions to find two.

/// The hash of nothing.
pub const NAME_HASH_START: u64 = 0xcbf2_9ce4_8422_2325;

/// The hash of one byte more.
#[inline(always)]
pub const fn name_hash_step(hash: u64, byte: u8) -> u64 {
    (hash ^ byte as u64).wrapping_mul(0x0100_0000_01b3)
}

/// The hash of a file's name, without folders.
pub const fn name_hash(name: &[u8]) -> u64 {
    let mut hash = NAME_HASH_START;
    let mut at = 0;
    while at < name.len() {
        hash = name_hash_step(hash, name[at]);
        at += 1;
    }
    hash
}

/// Longest file name of any file system (`NAME_MAX`).
pub const NAME_BYTES_MAX: u32 = 255;
/// How many files, and how many names, can be forbidden.
pub const RULES_MAX: u32 = 1024;
