//! TLS libraries that are not known by the names of their functions.

use serde::Deserialize;

use crate::probe::TlsFunction;

/// How a file is known that brings a TLS library which cannot be read. All that is given must fit.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TlsUnreadable {
    pub name: String,
    pub section: Option<String>,
    pub symbol: Option<String>,
    pub text: Option<String>,
    /// It does not fit a file that needs a library whose name begins with one of these.
    #[serde(default)]
    pub unless_needs: Vec<String>,
}

/// Where a certain file has its functions.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TlsFunctions {
    pub build_id: String,
    pub name: String,
    pub write: Option<u64>,
    pub write_ex: Option<u64>,
    pub read: Option<u64>,
    pub read_ex: Option<u64>,
    pub end: Option<u64>,
}

impl TlsFunctions {
    pub fn functions(&self) -> Vec<(TlsFunction, u64)> {
        let all = [
            (TlsFunction::Write, self.write),
            (TlsFunction::WriteEx, self.write_ex),
            (TlsFunction::Read, self.read),
            (TlsFunction::ReadEx, self.read_ex),
            (TlsFunction::End, self.end),
        ];
        all.into_iter().filter_map(|(function, at)| Some((function, at?))).collect()
    }
}

pub(super) fn check_unreadable(library: &TlsUnreadable) -> Result<(), String> {
    let TlsUnreadable { name, section, symbol, text, unless_needs } = library;
    if unless_needs.iter().any(String::is_empty) {
        return Err("`unless-needs` must have names".into());
    }
    let given = [section, symbol, text].into_iter().flatten();
    if name.is_empty() || given.clone().count() == 0 || given.clone().any(String::is_empty) {
        return Err("`name` and one of `section`, `symbol` and `text` must be there".into());
    }
    Ok(())
}

pub(super) fn check_functions(functions: &TlsFunctions) -> Result<(), String> {
    let TlsFunctions { build_id, write, write_ex, read, read_ex, end, .. } = functions;
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if build_id.is_empty() || !build_id.bytes().all(is_hex) {
        return Err(format!("`{build_id}` is no build id: they have digits and a to f"));
    }
    let (writes, reads) = (write.or(*write_ex), read.or(*read_ex));
    if writes.is_none() || reads.is_none() || end.is_none() {
        return Err("one that writes, one that reads and `end` must be there".into());
    }
    Ok(())
}
