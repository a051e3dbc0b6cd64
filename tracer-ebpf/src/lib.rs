//! The layout of everything the kernel side emits, shared by the probes and the collector.
//!
//! # Rules of this ABI
//!
//! - Producer and consumer are built from one checkout and loaded together, on one machine; there
//!   is no version negotiation and the byte order is the machine's own.
//! - Every struct is `repr(C)`, has explicit padding (zerocopy's `IntoBytes` refuses hidden padding
//!   at compile time) and is a multiple of eight bytes, so a record in a ring stays aligned.
//! - No `bool` and no `enum` in a wire struct: an integer that arrives becomes an enum by a checked
//!   conversion only.
//! - Kernel reads that failed are bits in [`abi::Header::unread`]; the event still goes out. A value
//!   whose bit is set means nothing.
//! - Each record starts with a [`abi::Header`].
#![no_std]

pub mod abi;
pub mod offsets;
