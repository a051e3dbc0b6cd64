//! TLS libraries, as the kernel side knows them.

use std::fs::File;

use aya::maps::{Array, HashMap, MapData};
use tracer_ebpf::abi::{TLS_FILES_MAX, TlsKey, TlsPlaces, TlsSession};

use super::{
    attached::{Attached, Breakpoints},
    error::LoadError,
    links::Link,
    plain::Plain,
};
use crate::model::ProcessKey;

/// A file with functions of a TLS library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsLibrary {
    /// Where in the file its functions get a breakpoint.
    pub functions: Vec<(TlsFunction, u64)>,
    pub places: TlsPlaces,
}

/// What a function of a TLS library does. Those that end in `Ex` write the number of bytes where
/// their fourth argument says, the others return it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsFunction {
    Write,
    WriteEx,
    Read,
    ReadEx,
    /// Gives a session back, or makes another one of it.
    End,
}

/// What runs when a function returns.
const RETURN: &str = "tls_return";

impl TlsFunction {
    const ALL: [TlsFunction; 5] = [
        TlsFunction::Write,
        TlsFunction::WriteEx,
        TlsFunction::Read,
        TlsFunction::ReadEx,
        TlsFunction::End,
    ];

    fn program(self) -> &'static str {
        match self {
            TlsFunction::Write => "tls_write",
            TlsFunction::WriteEx => "tls_write_ex",
            TlsFunction::Read => "tls_read",
            TlsFunction::ReadEx => "tls_read_ex",
            TlsFunction::End => "tls_end",
        }
    }

    /// Whether what it returns is of interest.
    fn returns(self) -> bool {
        self != TlsFunction::End
    }
}

/// Sessions of TLS libraries that have not ended.
pub struct TlsSessions(HashMap<MapData, Plain<TlsKey>, Plain<TlsSession>>);

impl std::fmt::Debug for TlsSessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsSessions").finish_non_exhaustive()
    }
}

impl TlsSessions {
    /// The process has ended, so its session has.
    pub fn forget(&mut self, process: ProcessKey, session: u64) {
        let key = Plain(TlsKey { session, tgid: process.pid, padding: 0 });
        // Another process can have its number by now, and a session at that place.
        if self.0.get(&key, 0).is_ok_and(|Plain(known)| known.start_ns == process.start_ns) {
            // One that the process gave back in between is not there any more.
            let _ = self.0.remove(&key);
        }
    }
}

impl Attached {
    /// Watches a TLS library, in every process that has mapped the file. What it is called here.
    pub fn watch_tls(&mut self, file: &File, library: &TlsLibrary) -> Result<u32, LoadError> {
        let object = |error: aya::maps::MapError| LoadError::Object(error.to_string());
        let number = self.tls_files;
        if number >= TLS_FILES_MAX {
            return Err(LoadError::TooManyFiles);
        }
        let map = self.loaded.object.map_mut("TLS_PLACES")?;
        let mut places = Array::<_, Plain<TlsPlaces>>::try_from(map).map_err(object)?;
        places.set(number, Plain(library.places), 0).map_err(object)?;
        self.tls_files += 1;
        let links = self.break_in(file, library, number)?;
        self.tls_links.insert(number, links);
        Ok(number)
    }

    /// Watches it no longer: its breakpoints are gone from every process.
    pub fn leave_tls(&mut self, number: u32) {
        self.tls_links.remove(&number);
    }

    fn break_in(
        &self,
        file: &File,
        library: &TlsLibrary,
        number: u32,
    ) -> Result<Vec<Link>, LoadError> {
        let together = self.tls_together;
        let mut links = Vec::new();
        let mut attach = |program, offsets: &[u64], at_return| {
            // All places of a program are one link, or each of them is.
            let each = if together { offsets.len() } else { 1 };
            for offsets in offsets.chunks(each.max(1)) {
                let places = Breakpoints { offsets, cookie: number.into(), at_return, together };
                let deputy = self.deputy.as_deref();
                links.push(self.loaded.break_at(program, deputy, file, &places)?);
            }
            Ok::<_, LoadError>(())
        };
        let places_of = |is_it: &dyn Fn(TlsFunction) -> bool| {
            let own = library.functions.iter().filter(|(function, _)| is_it(*function));
            own.map(|(_, at)| *at).collect::<Vec<u64>>()
        };
        // All calls first: a call whose return was not seen is a gap, and one that was not seen at all would not be.
        for function in TlsFunction::ALL {
            attach(function.program(), &places_of(&|other| other == function), false)?;
        }
        attach(RETURN, &places_of(&TlsFunction::returns), true)?;
        Ok(links)
    }

    /// What the kernel side remembers of sessions, which a process that is gone did not give back.
    pub fn take_tls_sessions(&mut self) -> Result<TlsSessions, LoadError> {
        let map = self.loaded.object.take_map("TLS_SESSIONS")?;
        let map = HashMap::try_from(map).map_err(|error| LoadError::Object(error.to_string()))?;
        Ok(TlsSessions(map))
    }
}
