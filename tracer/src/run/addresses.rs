//! The addresses of this machine's network interfaces.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Those of the network namespace that tracer is in. What cannot be read has none.
pub(super) fn of_this_machine() -> Vec<IpAddr> {
    let read =
        |name: &str| fs::read_to_string(format!("/proc/self/net/{name}")).unwrap_or_default();
    let (v4, v6) = (read("fib_trie"), read("if_inet6"));
    let all = of_trie(&v4).map(IpAddr::from).chain(of_table(&v6).map(IpAddr::from));
    // Loopback is known as such.
    all.filter(|address| !address.is_loopback()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// From `/proc/net/fib_trie`: an address, and below it what it is.
fn of_trie(text: &str) -> impl Iterator<Item = Ipv4Addr> {
    let mut last = None;
    text.lines().filter_map(move |line| {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        }
        last.filter(|_| line == "/32 host LOCAL")
    })
}

/// From `/proc/net/if_inet6`: an address in 32 hexadecimal digits, and more about it.
fn of_table(text: &str) -> impl Iterator<Item = Ipv6Addr> {
    let addresses = text.lines().filter_map(|line| line.split_whitespace().next());
    addresses.filter_map(|digits| u128::from_str_radix(digits, 16).ok()).map(Ipv6Addr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_kernel_prints_them() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
                    Local:\n        |-- 127.0.0.1\n           /32 host LOCAL\n     \
                    |-- 192.168.7.9\n        /32 host LOCAL\n     |-- 192.168.7.255\n        \
                    /32 link BROADCAST\n";
        let found: Vec<Ipv4Addr> = of_trie(trie).collect();
        assert_eq!(found, [Ipv4Addr::LOCALHOST, Ipv4Addr::new(192, 168, 7, 9)]);
        let table = "fe800000000000000cd1adfffe2b3fd5 02 40 20 80     eth0\n\
                     00000000000000000000000000000001 01 80 10 80       lo\n";
        let found: Vec<String> = of_table(table).map(|address| address.to_string()).collect();
        assert_eq!(found, ["fe80::cd1:adff:fe2b:3fd5", "::1"]);
    }

    #[test]
    fn loopback_is_none_of_them() {
        assert!(of_this_machine().iter().all(|address| !address.is_loopback()));
    }
}
