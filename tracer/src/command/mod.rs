//! Commands over recordings, from what was typed to an exit code.

mod sign;
mod verify;

pub(crate) use sign::{Signing, sign};
pub(crate) use verify::verify;
