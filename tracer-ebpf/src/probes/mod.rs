//! One file per hook family.

mod connect;
mod enrol;
mod exec;
mod exit;
mod fork;
mod identify;
