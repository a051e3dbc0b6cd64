//! Commands over recordings, from what was typed to an exit code.

mod attach;
mod compare;
mod policy;
mod sign;
mod verify;

pub(crate) use attach::attach;
pub(crate) use compare::compare;
pub(crate) use policy::policies;
pub(crate) use sign::{Signing, sign};
pub(crate) use verify::verify;
