//! Commands over recordings, from what was typed to an exit code.

mod compare;
mod sign;
mod verify;

pub(crate) use compare::compare;
pub(crate) use sign::{Signing, sign};
pub(crate) use verify::verify;
