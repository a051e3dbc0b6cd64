//! One file per hook family.

mod attempt;
mod connect;
mod enrol;
mod exec;
mod exit;
mod fork;
mod identify;
mod intrusion;
mod local_send;
