//! tracer's collector, in pipeline order.
//!
//! ```text
//! probe ─► rings ─► ingest ─► model::Event ─► session::Fold ─► record::Record ─┬─► recording
//!                                                                              ├─► otlp, a collector
//!                                                                              └─► session::Story
//!                                             recording ─► record::read ─► Story ─► policy::judge ─► report
//! ```
//!
//! A recording re-enters at the records, so everything from `Story` on needs no kernel and no root.

pub mod cli;
mod notice;
mod perf;
pub mod probe;
pub mod run;

pub mod ingest;
pub mod model;
pub mod protocol;
pub mod session;

pub mod record;

pub mod catalogue;
pub mod compare;
pub mod evidence;
pub mod otlp;
pub mod policy;
pub mod report;

pub mod version;

pub use notice::notice;
