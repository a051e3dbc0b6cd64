//! The file of hosts (hosts(5)).

use std::{collections::HashMap, net::IpAddr};

use super::host_name;

/// Names kept of one address: files that block advertisements give one address 100,000.
const NAMES_MAX: usize = 64;

/// Names by address, in the order of the file.
#[derive(Debug, Default)]
pub struct Hosts(HashMap<IpAddr, Vec<String>>);

impl Hosts {
    /// A line that is none says nothing.
    pub fn parse(file: &[u8]) -> Hosts {
        let mut hosts = Hosts::default();
        for line in file.split(|byte| *byte == b'\n') {
            let line = line.split(|byte| *byte == b'#').next().unwrap_or_default();
            let mut words =
                line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
            let address = words.next().and_then(|word| std::str::from_utf8(word).ok());
            let Some(Ok(address)) = address.map(str::parse::<IpAddr>) else { continue };
            let names = hosts.0.entry(address.to_canonical()).or_default();
            for name in words.map(host_name) {
                if names.len() < NAMES_MAX && !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        hosts
    }

    pub fn names(&self, address: IpAddr) -> &[String] {
        self.0.get(&address.to_canonical()).map(Vec::as_slice).unwrap_or_default()
    }
}
