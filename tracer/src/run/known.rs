//! What the policies' names stand for on this machine, when tracing starts.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{settings::Settings, watch::Wanted};
use crate::{
    catalogue::{self, Place, Program, Search},
    model::Bytes,
    policy::Claim,
    probe::Identifier,
    record::schema::{KnownCopy, KnownFolder, KnownInterpreter, WatchGap, Watched},
};

#[derive(Debug)]
pub(super) struct Known {
    /// The catalogue's entries.
    pub(super) entries: Vec<Program>,
    pub(super) copies: BTreeMap<String, Vec<KnownCopy>>,
    /// What paths that policies name really are.
    pub(super) paths: BTreeMap<String, Vec<Bytes>>,
    pub(super) folders: Vec<KnownFolder>,
    pub(super) packages: BTreeMap<String, Vec<Bytes>>,
    pub(super) interpreters: Vec<KnownInterpreter>,
    pub(super) gaps: Vec<WatchGap>,
    /// Programs that must not run: their files are watched.
    forbidden: BTreeSet<String>,
    home: Option<PathBuf>,
}

impl Known {
    pub(super) fn search(
        settings: &Settings,
        home: Option<PathBuf>,
        identifier: &Identifier,
    ) -> Known {
        let claims = settings.policies.iter().flat_map(|policy| &policy.claims);
        let named: BTreeSet<(&String, bool)> = claims.flat_map(Claim::programs_named).collect();
        let place = Place::from_environment(
            home.clone(),
            settings.command.first().map(std::ffi::OsString::as_os_str),
        );
        let search = Search::new(&settings.catalogue, &place);
        let mut known = Known {
            entries: Vec::new(),
            copies: BTreeMap::new(),
            paths: BTreeMap::new(),
            folders: Vec::new(),
            packages: BTreeMap::new(),
            interpreters: Vec::new(),
            gaps: Vec::new(),
            forbidden: BTreeSet::new(),
            home,
        };
        // Nobody asks whose copy a file is where nothing is forbidden.
        if named.iter().any(|(_, forbids)| *forbids) {
            known.interpreters = catalogue::interpreters(&search, &|path| identifier.file_at(path));
        }
        for (program, forbids) in named {
            if forbids {
                known.forbidden.insert(program.clone());
            }
            if known.copies.contains_key(program) {
                continue;
            }
            let found = search.find(program, &|path| identifier.file_at(path));
            if found.cut {
                known.gaps.push(WatchGap {
                    of: Watched::Program(program.clone()),
                    why: format!("there are more copies of {program} than tracer looks at"),
                });
            }
            if program.starts_with('/') {
                let mut places = catalogue::places(Path::new(program));
                // What goes by several names is another program by each of them.
                if found.copies.iter().any(|copy| copy.multi_call) {
                    places.truncate(1);
                }
                let places = places.iter().map(|place| Bytes::from(place.as_path()));
                known.paths.insert(program.clone(), places.collect());
            }
            known.entries.push(settings.catalogue.program(program).into_owned());
            known.copies.insert(program.clone(), found.copies);
            let packages: Vec<Bytes> =
                found.packages.iter().map(|folder| Bytes::from(folder.as_path())).collect();
            if !packages.is_empty() {
                known.packages.insert(program.clone(), packages);
            }
        }
        if !known.paths.is_empty() {
            known.folders = search.real_folders(known.paths.keys().map(Path::new));
        }
        known
    }

    /// What is to be watched of it.
    pub(super) fn wanted<'a>(&'a self, settings: &'a Settings) -> Wanted<'a> {
        fn of<T: Clone>(
            all: &BTreeMap<String, T>,
            names: &BTreeSet<String>,
        ) -> BTreeMap<String, T> {
            let wanted = all.iter().filter(|(name, _)| names.contains(*name));
            wanted.map(|(name, found)| (name.clone(), found.clone())).collect()
        }
        Wanted {
            copies: of(&self.copies, &self.forbidden),
            packages: of(&self.packages, &self.forbidden),
            catalogue: &settings.catalogue,
            home: self.home.as_deref(),
        }
    }
}
