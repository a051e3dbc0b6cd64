//! `tracer run`: the command under trace, from arming to verdict. `tracer attach` is in [`attach`].
//!
//! ```text
//! load ─► attach ─► canary ─► witness + launch ─► drain … ─► canary ─► detach ─► drain ─► judge
//! ```

mod addresses;
mod attach;
mod broker;
pub mod canary;
mod capabilities;
mod cgroup;
mod clock;
mod code_file;
mod collector;
mod content;
mod doctor;
mod engine;
mod first;
mod hierarchies;
mod inherited;
mod kept;
mod known;
mod last;
mod launch;
mod libraries;
mod live;
mod machine;
mod sandbox;
mod sender;
mod settings;
mod signals;
mod tls;
mod user;
mod watch;
mod witness;

pub use attach::{Join, Target, TargetError, attach};
pub use broker::{Broker, Task, wire};
pub use capabilities::Powerless;
pub use code_file::CodeFile;
pub use doctor::diagnose;
pub use engine::{Finished, RunError, run};
pub use inherited::stdout_was_closed;
pub use launch::LaunchError;
pub use sender::SenderProcess;
pub use settings::{OnError, Settings};
pub use user::CallingUser;
