//! One file per hook family.

mod attempt;
mod cgroup;
mod connect;
mod destination;
mod enrol;
mod exec;
mod exit;
mod find;
mod foreign_send;
mod fork;
mod identify;
mod intrusion;
mod local_send;
mod odd_socket;
mod packet;
mod resolve;
mod tls;
