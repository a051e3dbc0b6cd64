//! All that is read of a file that processes execute or map.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use super::{libraries, tls};
use crate::catalogue::Catalogue;

/// What such a file says. The traced tree may have written it.
#[derive(Debug)]
pub struct CodeFile {
    /// The dynamic loader that it asks for.
    pub loader: Option<PathBuf>,
    /// Where getaddrinfo begins in it.
    pub getaddrinfo_bytes: Option<u64>,
    /// Where functions of a TLS library get breakpoints in it.
    pub tls_functions: Vec<u64>,
}

impl CodeFile {
    /// `is_program` for one that is executed.
    pub fn read(path: &Path, is_program: bool, catalogue: &Catalogue) -> CodeFile {
        let file = File::open(path).ok();
        CodeFile {
            loader: libraries::loader(path),
            getaddrinfo_bytes: libraries::function(path, "getaddrinfo"),
            tls_functions: file
                .map(|file| tls::functions_in(file, is_program, catalogue))
                .unwrap_or_default(),
        }
    }
}
