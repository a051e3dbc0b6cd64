//! `tracer run`: the command under trace, from arming to verdict. `tracer attach` is in [`attach`].
//!
//! ```text
//! load ─► attach ─► canary ─► witness + launch ─► drain … ─► canary ─► detach ─► drain ─► judge
//! ```

mod attach;
pub mod canary;
mod cgroup;
mod collector;
mod content;
mod doctor;
mod engine;
mod hierarchies;
mod inherited;
mod known;
mod launch;
mod libraries;
mod machine;
mod settings;
mod signals;
mod tls;
mod user;
mod watch;
mod witness;

pub use attach::{Join, Target, TargetError, attach};
pub use doctor::{Diagnosis, diagnose};
pub(crate) use engine::VERSION;
pub use engine::{Finished, RunError, run};
pub use inherited::stdout_was_closed;
pub use launch::LaunchError;
pub use settings::{OnError, Settings};
pub use tls::tls_library_in;
pub use user::CallingUser;
