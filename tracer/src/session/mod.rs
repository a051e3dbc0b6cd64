//! What the events mean.
//!
//! Two steps, both without IO or a clock: the [`Fold`] turns each event into a record (what a
//! recording holds), and a [`Story`] is what a sequence of records, live or read back, adds up to. An
//! [`excerpt`] is one of a file.

pub(crate) mod answers;
mod attempts;
mod by_pid;
pub mod calls;
mod credentials;
mod errno;
pub mod excerpt;
mod fold;
mod images;
mod mcp;
mod names;
mod outside;
mod payload;
mod stdio;
mod story;
#[cfg(test)]
mod tests;

pub use by_pid::ByPid;
pub(crate) use excerpt::Whole;

pub use credentials::{
    CredentialUse, Helper, Origin, Step, StepWhat, credential_process_digests, credential_uses,
    helper,
};
pub use fold::{Fold, Machine, Numbers};
pub use images::{Image, ImageEvent, Images};
pub use mcp::{McpTransport, McpUse, mcp_servers};
pub use names::{NameSource, Named, Names, Naming};
pub use outside::HandOffs;
pub use payload::Payloads;
pub use story::{Connection, Forgotten, Process, Story, Window};
