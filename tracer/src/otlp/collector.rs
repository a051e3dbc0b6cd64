//! The address of a collector.

use std::{net::IpAddr, str::FromStr};

/// Where log records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    url: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CollectorError {
    #[error(
        "the collector must be reached by http. For TLS and authentication send to a collector on this machine or \
         in this cluster, which passes it on"
    )]
    Tls,
    #[error(
        "it must be the address of an OpenTelemetry collector's OTLP/HTTP receiver, such as http://127.0.0.1:4318"
    )]
    NoUrl,
}

impl FromStr for Collector {
    type Err = CollectorError;

    /// A base, to which `/v1/logs` is added, or the whole address (OTLP exporter specification, "Endpoint
    /// URLs for OTLP/HTTP").
    fn from_str(text: &str) -> Result<Collector, CollectorError> {
        let (scheme, rest) = text.split_once("://").ok_or(CollectorError::NoUrl)?;
        match scheme.to_ascii_lowercase().as_str() {
            "http" => {}
            "https" => return Err(CollectorError::Tls),
            _ => return Err(CollectorError::NoUrl),
        }
        const LOGS: &str = "/v1/logs";
        let base = text.trim_end_matches('/');
        let url = if base.ends_with(LOGS) { base.to_owned() } else { format!("{base}{LOGS}") };
        let parsed = ureq::http::Uri::from_str(&url).map_err(|_| CollectorError::NoUrl)?;
        let authority = parsed.authority().map_or("", |authority| authority.as_str());
        let has_port = authority.rsplit(']').next().is_some_and(|end| end.contains(':'));
        if rest.starts_with('/')
            || (has_port && parsed.port_u16().is_none())
            || parsed.host().is_none_or(str::is_empty)
            || url.contains(['?', '#', '@'])
        {
            return Err(CollectorError::NoUrl);
        }
        Ok(Collector { url })
    }
}

impl Collector {
    fn uri(&self) -> ureq::http::Uri {
        ureq::http::Uri::from_str(&self.url).unwrap_or_default()
    }

    /// Of TCP.
    pub fn port(&self) -> u16 {
        const HTTP: u16 = 80;
        self.uri().port_u16().unwrap_or(HTTP)
    }

    /// Its host is named, so to find it takes files and servers.
    pub fn has_name(&self) -> bool {
        let uri = self.uri();
        let host = uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        host.parse::<IpAddr>().is_err()
    }
}

impl std::fmt::Display for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url)
    }
}
