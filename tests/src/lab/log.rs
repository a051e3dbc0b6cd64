//! The server's log: what was really asked, to compare a recording with.
//!
//! All times are CLOCK_MONOTONIC nanoseconds, the clock of the kernel's events.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Entry {
    Request(Request),
    Dns(Question),
    Connection(Connection),
    TlsError(TlsError),
}

impl Entry {
    pub(super) fn into_request(self) -> Option<Request> {
        match self {
            Self::Request(request) => Some(request),
            Self::Dns(_) | Self::Connection(_) | Self::TlsError(_) => None,
        }
    }

    pub(super) fn into_question(self) -> Option<Question> {
        match self {
            Self::Dns(question) => Some(question),
            Self::Request(_) | Self::Connection(_) | Self::TlsError(_) => None,
        }
    }
}

/// One HTTP request, logged when its answer ended or was given up.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Request {
    pub host: String,
    pub method: String,
    /// With its query.
    pub path: String,
    /// `None` when the client was gone before an answer began.
    pub status: Option<u16>,
    /// The value of `x-amzn-requestid`, `request-id` or what the service calls it.
    pub request_id: Option<String>,
    /// `1.1` or `2.0`.
    pub http_version: String,
    /// The [`Connection`] it came on.
    pub connection: Option<u64>,
    pub address: Ipv4Addr,
    pub client_port: Option<u16>,
    /// The first word of the authorization header.
    pub authorization_scheme: Option<String>,
    /// Of the bodies, without headers and chunk sizes.
    pub request_bytes: u64,
    pub response_bytes: u64,
    /// When the request's headers were read.
    pub received_ns: u64,
    /// When the answer's first byte was written.
    pub responded_ns: Option<u64>,
    /// Before the last byte of its body was written.
    pub last_ns: Option<u64>,
    pub ended_ns: u64,
    /// Whether the whole answer was handed to the connection.
    pub completed: bool,
}

/// One question to the name server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Question {
    pub name: String,
    #[serde(rename = "type")]
    pub record_type: String,
    /// `NOERROR` or `NXDOMAIN`.
    pub rcode: String,
    pub addresses: Vec<Ipv4Addr>,
    /// `udp` or `tcp`.
    pub transport: String,
    pub client_port: u16,
    pub at_ns: u64,
}

/// One TLS connection, logged when its handshake was done.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Connection {
    pub id: u64,
    /// The host whose address was called, whatever name was asked for.
    pub host: String,
    pub address: Ipv4Addr,
    pub client_port: u16,
    pub sni: Option<String>,
    pub alpn: Option<String>,
    /// Such as `TLSv1.3`.
    pub tls: Option<String>,
    pub at_ns: u64,
}

/// One connection whose handshake failed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TlsError {
    pub host: String,
    pub address: Ipv4Addr,
    pub client_port: Option<u16>,
    pub error: String,
    pub at_ns: u64,
}

pub(super) fn parse(text: &[u8]) -> Result<Vec<Entry>> {
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            serde_json::from_slice(line)
                .with_context(|| format!("the lab's log: {}", String::from_utf8_lossy(line)))
        })
        .collect()
}

/// Reads from the start, whatever was read before.
pub(super) fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut chunk = [0; 16384];
    loop {
        match file.read_at(&mut chunk, text.len() as u64)? {
            0 => return Ok(text),
            count => text.extend_from_slice(&chunk[..count]),
        }
    }
}
