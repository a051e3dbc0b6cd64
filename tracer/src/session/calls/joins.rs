//! Which connection a TLS session went over.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::{
    model::{Endpoint, ProcessKey},
    record::schema::{CallConnection, FirstBytes, JoinedBy, Opening},
};

/// Connections that are remembered; when there are more, the oldest are forgotten.
const CONNECTIONS_MAX: usize = 16 * 1024;

/// The random number of a ClientHello.
pub(super) type ClientRandom = [u8; 32];

/// Connections whose ClientHello was seen.
#[derive(Debug, Default)]
pub(super) struct Joins {
    /// By the number that they have here, in order of time.
    known: BTreeMap<u64, Known>,
    by_random: HashMap<ClientRandom, u64>,
    by_connection: HashMap<u64, u64>,
    /// ClientHellos of this round, and when they came.
    heard: HashMap<ClientRandom, u64>,
    /// Connections to a proxy, whose other end is not who is spoken with.
    tunnels: HashSet<u64>,
    next: u64,
}

#[derive(Debug)]
struct Known {
    connection: u64,
    process: ProcessKey,
    random: Option<ClientRandom>,
    sni: Option<String>,
    server: Option<Endpoint>,
    opened_ns: u64,
    attempted_ns: Option<u64>,
    closed_ns: Option<u64>,
    /// A session is known for certain to go over it.
    taken: bool,
}

/// What is known of a session's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Joined {
    pub(super) connection: CallConnection,
    pub(super) sni: Option<String>,
    /// Whom the connection is with, if that is no proxy.
    pub(super) server: Option<Endpoint>,
    pub(super) attempted_ns: Option<u64>,
}

impl Joins {
    /// When the ClientHello of a connection came. To be said before [`Joins::opening`], which waits for the
    /// round to end.
    pub(super) fn heard(&mut self, opening: &Opening) {
        if let FirstBytes::Tls { client_random, quic: false, .. } = &opening.what
            && let Some(random) = bytes_of(client_random)
        {
            self.heard.insert(random, opening.t_ns);
        }
    }

    /// The round has ended.
    pub(super) fn forget_heard(&mut self) {
        self.heard.clear();
    }

    /// When the ClientHello of a session was on the wire; none if it was not seen there.
    pub(super) fn began_ns(&self, randoms: &[ClientRandom]) -> Option<u64> {
        let known = |random| Some(self.known.get(self.by_random.get(random)?)?.opened_ns);
        randoms.iter().find_map(|random| self.heard.get(random).copied().or_else(|| known(random)))
    }

    pub(super) fn opening(&mut self, opening: &Opening, attempted_ns: Option<u64>) {
        let Some(connection) = opening.connection else { return };
        if matches!(&opening.what, FirstBytes::Http { method, .. } if method == "CONNECT") {
            if self.tunnels.len() >= CONNECTIONS_MAX {
                self.tunnels.clear();
            }
            self.tunnels.insert(connection);
        }
        let FirstBytes::Tls { sni, client_random, quic: false, .. } = &opening.what else { return };
        let number = self.next;
        self.next += 1;
        let random = bytes_of(client_random);
        if let Some(random) = random {
            self.by_random.insert(random, number);
        }
        self.by_connection.insert(connection, number);
        let known = Known {
            connection,
            process: opening.process,
            random,
            sni: sni.clone(),
            server: opening.destination.filter(|_| !self.tunnels.contains(&connection)),
            opened_ns: opening.t_ns,
            attempted_ns,
            closed_ns: None,
            taken: false,
        };
        self.known.insert(number, known);
        if self.known.len() > CONNECTIONS_MAX
            && let Some((oldest, known)) = self.known.pop_first()
        {
            self.by_connection.retain_if(known.connection, oldest);
            if let Some(random) = known.random {
                self.by_random.retain_if(random, oldest);
            }
        }
    }

    pub(super) fn closed(&mut self, connection: u64, t_ns: u64) {
        self.tunnels.remove(&connection);
        let number = self.by_connection.get(&connection);
        if let Some(known) = number.and_then(|number| self.known.get_mut(number)) {
            known.closed_ns = Some(t_ns);
        }
    }

    /// By the random number; where that leads nowhere, the only connection that the process had open
    /// at that time under this name.
    pub(super) fn of(
        &mut self,
        process: ProcessKey,
        randoms: &[ClientRandom],
        host: Option<&str>,
        t_ns: u64,
    ) -> Option<Joined> {
        let exact = randoms.iter().find_map(|random| self.by_random.get(random).copied());
        if let Some(known) = exact.and_then(|number| self.known.get_mut(&number)) {
            known.taken = true;
            return Some(known.joined(JoinedBy::Exact));
        }
        let fits = |known: &&Known| {
            known.process == process
                && !known.taken
                && known.opened_ns <= t_ns
                && known.closed_ns.is_none_or(|closed_ns| closed_ns >= t_ns)
                && host.is_some_and(|host| known.sni.as_deref() == Some(host))
        };
        let mut fitting = self.known.values().filter(fits);
        let only = fitting.next()?;
        fitting.next().is_none().then(|| only.joined(JoinedBy::Inferred))
    }
}

impl Known {
    fn joined(&self, by: JoinedBy) -> Joined {
        Joined {
            connection: CallConnection { id: self.connection, by },
            sni: self.sni.clone(),
            server: self.server,
            attempted_ns: self.attempted_ns,
        }
    }
}

/// A map in which a later entry may stand under the key of one that goes.
trait RetainIf<K> {
    fn retain_if(&mut self, key: K, gone: u64);
}

impl<K: std::hash::Hash + Eq> RetainIf<K> for HashMap<K, u64> {
    fn retain_if(&mut self, key: K, gone: u64) {
        if self.get(&key) == Some(&gone) {
            self.remove(&key);
        }
    }
}

/// From hexadecimal.
fn bytes_of(text: &str) -> Option<ClientRandom> {
    let mut random = ClientRandom::default();
    if text.len() != 2 * random.len() || !text.is_ascii() {
        return None;
    }
    for (at, byte) in random.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(random)
}
