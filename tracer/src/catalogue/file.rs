//! Catalogue files: TOML, every unknown key refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::Deserialize;

use super::{
    CallRule, Catalogue, CredentialHelper, CredentialSource, EndpointRule, HandOffKind,
    HandOffPoint, McpServer, Program, Target, TlsFunctions, TlsUnreadable, credentials, tls,
};

#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error("cannot read the catalogue {path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("the catalogue {path} is not valid: {detail}")]
    Invalid { path: String, detail: String },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct File {
    #[serde(default)]
    pub(super) folders: Vec<String>,
    #[serde(default)]
    pub(super) other_folders: Vec<String>,
    #[serde(default)]
    pub(super) program: Vec<Program>,
    #[serde(default)]
    pub(super) hand_off: Vec<HandOffPoint>,
    #[serde(default)]
    pub(super) endpoint_forms: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    pub(super) endpoint: Vec<EndpointRule>,
    #[serde(default)]
    pub(super) call: Vec<CallRule>,
    #[serde(default)]
    pub(super) credential_source: Vec<CredentialSource>,
    #[serde(default)]
    pub(super) credential_helper: Vec<CredentialHelper>,
    #[serde(default)]
    pub(super) mcp_server: Vec<McpServer>,
    #[serde(default)]
    pub(super) tls_unreadable: Vec<TlsUnreadable>,
    #[serde(default)]
    pub(super) tls_functions: Vec<TlsFunctions>,
}

impl Catalogue {
    /// The embedded catalogue, extended by files.
    pub fn with_files(paths: &[impl AsRef<Path>]) -> Result<Catalogue, CatalogueError> {
        let mut texts = Vec::new();
        for path in paths {
            let name = path.as_ref().display().to_string();
            let text = std::fs::read_to_string(path)
                .map_err(|source| CatalogueError::Io { path: name.clone(), source })?;
            texts.push((name, text));
        }
        Catalogue::with_texts(texts.iter().map(|(name, text)| (name.as_str(), text.as_str())))
    }

    /// The same of texts, each with the name that errors call it by.
    pub fn with_texts<'a>(
        texts: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Catalogue, CatalogueError> {
        let mut catalogue = Catalogue::embedded().clone();
        for (name, text) in texts {
            catalogue
                .extend(parse(text, name)?)
                .map_err(|detail| CatalogueError::Invalid { path: name.into(), detail })?;
        }
        Ok(catalogue)
    }
}

pub(super) fn parse(text: &str, path: &str) -> Result<File, CatalogueError> {
    let invalid = |detail: String| CatalogueError::Invalid { path: path.into(), detail };
    let file: File = toml::from_str(text).map_err(|error| invalid(error.to_string()))?;
    check(&file).map_err(invalid)?;
    Ok(file)
}

fn check(file: &File) -> Result<(), String> {
    file.folders.iter().try_for_each(|folder| pattern("folders", folder))?;
    file.other_folders.iter().try_for_each(|folder| pattern("other-folders", folder))?;
    let mut names = BTreeSet::new();
    for program in &file.program {
        let name = &program.name;
        if name.is_empty() || name.contains('/') || name.starts_with('@') {
            return Err(format!("`{name}` is no name of a program: it must be a file name"));
        }
        if !names.insert(name) {
            return Err(format!("the program `{name}` is there twice"));
        }
        check_program(program).map_err(|detail| format!("program `{name}`: {detail}"))?;
    }
    for point in &file.hand_off {
        let name = &point.name;
        if name.is_empty() {
            return Err("a hand-off has an empty `name`".into());
        }
        check_hand_off(point).map_err(|detail| format!("hand-off `{name}`: {detail}"))?;
    }
    for source in &file.credential_source {
        let named = |detail: String| format!("credential-source `{}`: {detail}", source.name);
        credentials::check_source(source).map_err(named)?;
        source.files.iter().try_for_each(|path| plain_path(path)).map_err(named)?;
    }
    for helper in &file.credential_helper {
        if helper.name.is_empty() || helper.name.contains('/') {
            return Err(format!("credential-helper: `{}` is no name of a program", helper.name));
        }
    }
    for server in &file.mcp_server {
        let bad = server
            .words
            .iter()
            .chain(&server.launchers)
            .find(|word| glob::Pattern::new(word).is_err());
        if let Some(word) = bad.or_else(|| server.words.iter().find(|word| word.is_empty())) {
            return Err(format!("mcp-server `{}`: `{word}` is no pattern", server.name));
        }
    }
    for library in &file.tls_unreadable {
        let named = |detail| format!("tls-unreadable `{}`: {detail}", library.name);
        tls::check_unreadable(library).map_err(named)?;
    }
    for functions in &file.tls_functions {
        let named = |detail| format!("tls-functions `{}`: {detail}", functions.name);
        tls::check_functions(functions).map_err(named)?;
    }
    Ok(())
}

/// A path that need not exist yet, so it cannot be a pattern.
fn plain_path(path: &str) -> Result<(), String> {
    pattern("files", path)?;
    if path.contains(['*', '?', '[']) {
        return Err(format!("`{path}` in `files` must be a plain path, and there are no patterns"));
    }
    Ok(())
}

fn check_program(program: &Program) -> Result<(), String> {
    if let Some(name) = program.file_names.iter().find(|name| name.is_empty() || name.contains('/'))
    {
        return Err(format!("`{name}` in `file-names` is no file name"));
    }
    let is_module = |name: &str| {
        !name.is_empty()
            && name.split('.').all(|part| {
                !part.is_empty()
                    && part.chars().all(|letter| letter.is_alphanumeric() || letter == '_')
            })
    };
    if let Some(name) = program.python_modules.iter().find(|name| !is_module(name)) {
        return Err(format!("`{name}` in `python-modules` is no name of a Python module"));
    }
    let outside = |path: &&String| {
        path.is_empty() || path.starts_with('/') || path.split('/').any(|part| part == "..")
    };
    if let Some(path) = program.marker_files.iter().find(outside) {
        return Err(format!(
            "`{path}` in `marker-files` must be relative to the folder that holds the modules"
        ));
    }
    for call in &program.calls {
        Target::parse(call).map_err(|why| format!("`calls`: {why}"))?;
    }
    program.layouts.iter().try_for_each(|layout| pattern("layouts", layout))?;
    program.module_folders.iter().try_for_each(|folder| pattern("module-folders", folder))
}

fn check_hand_off(point: &HandOffPoint) -> Result<(), String> {
    let (wanted, other) = match point.kind {
        HandOffKind::Port => (!point.ports.is_empty(), !point.paths.is_empty()),
        HandOffKind::Directory | HandOffKind::Socket | HandOffKind::HarmlessSocket => {
            (!point.paths.is_empty(), !point.ports.is_empty())
        }
    };
    if !wanted || point.why.trim().is_empty() {
        return Err("`paths` (for a port, `ports`) and `why` must not be empty".into());
    }
    if other {
        return Err("a port has `ports`, everything else has `paths`".into());
    }
    let is_socket = matches!(point.kind, HandOffKind::Socket | HandOffKind::HarmlessSocket);
    point.paths.iter().try_for_each(|path| match path.strip_prefix('@') {
        Some(abstract_name) if is_socket && !abstract_name.is_empty() => Ok(()),
        _ => pattern("paths", path),
    })
}

fn pattern(key: &str, text: &str) -> Result<(), String> {
    if !text.starts_with('/') && !text.starts_with("~/") {
        return Err(format!("`{text}` in `{key}` must start with / or ~/"));
    }
    if text.split('/').any(|part| part == "..") {
        return Err(format!("`{text}` in `{key}` must not go up by `..`"));
    }
    if text.contains("**") {
        return Err(format!("`{text}` in `{key}`: `*` stands for one component, `**` for nothing"));
    }
    glob::Pattern::new(text).map_err(|error| format!("`{text}` in `{key}`: {error}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_catalogue_is_valid() {
        let catalogue = Catalogue::embedded();
        assert_eq!(catalogue.program("aws").python_modules, ["awscli"]);
        assert_eq!(catalogue.program("zzz").file_names, ["zzz"]);
        assert!(catalogue.has_hand_off("cron") && !catalogue.has_hand_off("zzz"));
        assert!(catalogue.program("aws").file_names.contains(&"aws".to_owned()));
    }

    #[test]
    fn files_extend_entries_and_add_new_ones() {
        let mut catalogue = Catalogue::embedded().clone();
        let text = "folders = ['/x/bin']\n[[program]]\nname = 'aws'\nfile-names = ['aws-cli']\n\
                    [[program]]\nname = 'tool'\nlayouts = ['~/tool/*/tool']\n\
                    [[hand-off]]\nname = 'queue'\nkind = 'directory'\npaths = ['/x/queue']\n\
                    why = 'runs what is there'";
        catalogue.extend(parse(text, "more.toml").unwrap()).unwrap();
        let aws = catalogue.program("aws");
        assert!(aws.is_file_name(b"aws") && aws.is_file_name(b"aws-cli"));
        assert_eq!(aws.python_modules, ["awscli"]);
        assert_eq!(catalogue.program("tool").file_names, ["tool"]);
        assert!(catalogue.folders.contains(&"/x/bin".to_owned()));
        assert!(catalogue.has_hand_off("queue"));
    }

    #[test]
    fn endpoints_of_files_come_first() {
        let mut catalogue = Catalogue::embedded().clone();
        let text = "[endpoint-forms]\nours = ['{}.corp.example.com']\n\
                    [[endpoint]]\nservice = 'gateway'\nprovider = 'us'\nclass = 'api'\n\
                    names = ['ours:gw', 'aws:gateway', 'mcp.example.com']\nports = [443]";
        catalogue.extend(parse(text, "more.toml").unwrap()).unwrap();
        let service = |name| catalogue.classify(Some(name), None).map(|found| found.service);
        assert_eq!(service("gw.corp.example.com").as_deref(), Some("gateway"));
        assert_eq!(service("gateway.us-east-1.amazonaws.com").as_deref(), Some("gateway"));
        assert_eq!(service("mcp.example.com").as_deref(), Some("gateway"));
        assert_eq!(service("mcp.example.org").as_deref(), Some("mcp-server"));
    }

    #[test]
    fn bad_endpoints_say_what_is_wrong() {
        let check = |rest: &str, expected: &str| {
            let text = format!("[[endpoint]]\nprovider = 'x'\nclass = 'api'\n{rest}");
            let mut catalogue = Catalogue::embedded().clone();
            let error = parse(&text, "c.toml")
                .map_err(|error| error.to_string())
                .and_then(|file| catalogue.extend(file))
                .unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check("service = 'x'", "neither `names` nor `ranges`");
        check("service = 'X y'\nnames = ['a.b']", "lower-case");
        check("service = 'x'\nnames = ['a.b']\nport = [1]", "port");
        check("service = 'x'\nnames = ['a.b']\nports = [0]", "is no port");
        check("service = 'x'\nnames = ['a.b:443']", "no form `a.b`");
        check("service = 'x'\nnames = ['10.0.0.1']", "belongs in `ranges`");
        check("service = 'x'\nnames = ['https://a.b']", "no form `https`");
        check("service = 'x'\nnames = ['*']", "no fixed part");
        check("service = 'x'\nranges = ['10.0.0.1/8']", "must be `10.0.0.0/8`");
        check("service = 'x'\nranges = ['a.b']", "neither an address");
        check("service = 'x-{service}'\nnames = ['a.b']", "no `{service}`");
        check("service = 'x-{service}'\nnames = ['{service}.b']\nranges = ['::1']", "`ranges`");
        check("service = 'x'\nnames = ['a.b']\n[endpoint-forms]\naws = ['a']", "already");
    }

    #[test]
    fn bad_files_say_what_is_wrong() {
        let check = |text: &str, expected: &str| {
            let error = parse(text, "c.toml").unwrap_err().to_string();
            assert!(error.contains("c.toml") && error.contains(expected), "{error}");
        };
        let program = |rest: &str| format!("[[program]]\nname = 'x'\n{rest}");
        check("[[programme]]\nname = 'x'", "programme");
        check(&program("file_names = ['y']"), "file_names");
        check("[[program]]\nname = 'a/b'", "`a/b` is no name of a program");
        check(&format!("{}\n{}", program(""), program("")), "there twice");
        check(&program("file-names = ['a/b']"), "`a/b` in `file-names`");
        check(&program("python-modules = ['a b']"), "no name of a Python module");
        check(&program("python-modules = ['a..b']"), "no name of a Python module");
        check(&program("marker-files = ['/a']"), "must be relative");
        check(&program("calls = ['https://a.b']"), "is a URL");
        check(&program("layouts = ['bin/x']"), "must start with / or ~/");
        check(&program("layouts = ['/a/../x']"), "must not go up");
        check(&program("module-folders = ['/a/**/x']"), "`**`");
        check("folders = ['/a/[']", "`/a/[` in `folders`");
        let hand_off = |rest: &str| format!("[[hand-off]]\nname = 'x'\n{rest}");
        check(&hand_off("kind = 'file'\npaths = ['/x']\nwhy = 'y'"), "directory");
        check(&hand_off("kind = 'socket'\npaths = []\nwhy = 'y'"), "must not be empty");
        check(&hand_off("kind = 'directory'\npaths = ['@x']\nwhy = 'y'"), "must start with /");
        check("[[tls-unreadable]]\nname = 'x'", "one of `section`");
        check("[[tls-functions]]\nname = 'x'\nbuild-id = 'x'", "no build id");
        check("[[tls-functions]]\nname = 'x'\nbuild-id = 'a0'\nread = 1", "one that writes");
        parse(&hand_off("kind = 'socket'\npaths = ['@x']\nwhy = 'y'"), "c.toml").unwrap();
        assert!(matches!(
            Catalogue::with_files(&["/no/such/file"]),
            Err(CatalogueError::Io { .. })
        ));
    }
}
