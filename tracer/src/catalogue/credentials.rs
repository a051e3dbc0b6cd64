//! Where programs take credentials from, and what hands them over.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracer_ebpf::abi::{VARIABLE_NAME_MAX, VARIABLES_MAX};

use super::Catalogue;

/// A place that credentials come from, or a setting that says which places are asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CredentialSource {
    pub name: String,
    /// Whose credentials these are.
    pub provider: String,
    pub kind: SourceKind,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<String>,
    /// Paths of files, or of folders of files: absolute, or starting with `~/`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// A variable that names another file instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<String>,
    /// Of a setting: sources of the same provider that are not asked while it is set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<String>,
    /// It says where to look further, so another source that was asked counts for more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub leads_on: bool,
    /// Endpoints that are asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if wants this")]
fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// The variables are the credentials, all of them together.
    Environment,
    /// The files hold credentials, or say where to get them.
    File,
    /// It is asked over the network.
    Service,
    /// No source: the variables change which sources are asked.
    Setting,
}

/// A program that hands credentials to whoever starts it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CredentialHelper {
    /// Of a program of the catalogue, or of its file.
    pub name: String,
    /// One list of words must stand among the arguments, in this order; any call will do when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<Vec<String>>,
}

impl CredentialHelper {
    /// Whether a call with these arguments hands over credentials.
    pub fn is_asked(&self, args: &[impl AsRef<[u8]>]) -> bool {
        let stands = |words: &Vec<String>| {
            let mut rest = args.iter();
            words.iter().all(|word| rest.any(|arg| arg.as_ref() == word.as_bytes()))
        };
        self.arguments.is_empty() || self.arguments.iter().any(stands)
    }
}

/// How servers of the Model Context Protocol that are started as subprocesses can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct McpServer {
    /// `{}` stands for what a `*` of the pattern matched.
    pub name: String,
    /// Patterns of a word of the command line.
    pub words: Vec<String>,
    /// File names of programs that start what one of their arguments says. Of other programs only the
    /// name counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub launchers: Vec<String>,
}

impl McpServer {
    /// Whether the arguments of a program of this name say what it starts.
    pub fn is_launcher(&self, program: &str) -> bool {
        let name = program.rsplit_once('/').map_or(program, |(_, name)| name);
        let matches = |own: &String| glob::Pattern::new(own).is_ok_and(|own| own.matches(name));
        self.launchers.iter().any(matches)
    }

    /// The server's name when this word of a command line stands for it.
    pub fn called(&self, word: &str) -> Option<String> {
        // A whole command in one word is what a shell is given; what it runs has words of its own.
        if word.contains(char::is_whitespace) {
            return None;
        }
        let leaf = word.trim_end_matches('/');
        let leaf = leaf.rsplit_once('/').map_or(leaf, |(_, leaf)| leaf);
        let found = |text: &str| {
            let text = without_version(text);
            self.words.iter().find_map(|pattern| middle(pattern, text))
        };
        found(word).or_else(|| found(leaf)).map(|part| self.name.replace("{}", &part))
    }
}

/// `@scope/name@1.2.3` without the version.
fn without_version(word: &str) -> &str {
    match word.rfind('@') {
        Some(at) if at > 0 => &word[..at],
        _ => word,
    }
}

/// What the last `*` of a pattern stands for in this text; the text itself when there is none.
fn middle(pattern: &str, text: &str) -> Option<String> {
    const OPTIONS: glob::MatchOptions = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: false,
    };
    let glob = glob::Pattern::new(pattern).ok()?;
    if !glob.matches_with(text, OPTIONS) {
        return None;
    }
    let Some((before, after)) = pattern.rsplit_once('*') else { return Some(text.to_owned()) };
    if before.contains('*') {
        return Some(text.trim_start_matches('@').to_owned());
    }
    let part = text.strip_prefix(before)?.strip_suffix(after)?;
    Some(if part.is_empty() { text } else { part }.to_owned())
}

impl Catalogue {
    /// Every environment variable that says something about credentials, each once. Their places in
    /// this list are the numbers by which the kernel side knows them.
    pub fn credential_variables(&self) -> Vec<String> {
        credential_variables(&self.credential_sources)
    }

    /// The name of the server of the Model Context Protocol that a word of a command line stands for.
    pub fn mcp_server(&self, word: &str) -> Option<String> {
        self.mcp_servers.iter().find_map(|server| server.called(word))
    }
}

/// See [`Catalogue::credential_variables`].
pub fn credential_variables(sources: &[CredentialSource]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in sources.iter().flat_map(|source| source.variables.iter().chain(&source.redirect)) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Refuses what the kernel side could not look for, and what would never match.
pub(super) fn check_source(source: &CredentialSource) -> Result<(), String> {
    for name in source.variables.iter().chain(&source.redirect) {
        if name.is_empty() || name.len() > VARIABLE_NAME_MAX || name.contains(['=', '\0']) {
            return Err(format!(
                "`{name}` is no environment variable that can be looked for: it needs 1 to \
                 {VARIABLE_NAME_MAX} bytes, and no `=`"
            ));
        }
    }
    let (needed, what) = match source.kind {
        SourceKind::Environment | SourceKind::Setting => {
            (!source.variables.is_empty(), "`variables`")
        }
        SourceKind::File => {
            (!source.files.is_empty() || source.redirect.is_some(), "`files` or `redirect`")
        }
        SourceKind::Service => (!source.services.is_empty(), "`services`"),
    };
    if !needed {
        return Err(format!("it needs {what}"));
    }
    if source.provider.is_empty() {
        return Err("`provider` is empty".into());
    }
    Ok(())
}

/// Refuses a catalogue with more variables than there are bits for them.
pub(super) fn check_count(sources: &[CredentialSource]) -> Result<(), String> {
    let names = credential_variables(sources).len();
    if names > VARIABLES_MAX as usize {
        return Err(format!(
            "the sources of credentials name {names} environment variables in all, and at most \
             {VARIABLES_MAX} can be looked for"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_command_lines_name_servers() {
        let server = |word: &str| Catalogue::embedded().mcp_server(word);
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(server("@modelcontextprotocol/server-filesystem"), some("filesystem"));
        assert_eq!(server("@modelcontextprotocol/server-github@2025.4.8"), some("github"));
        assert_eq!(server("/usr/bin/mcp-server-git"), some("git"));
        assert_eq!(server("/opt/github-mcp-server"), some("github"));
        assert_eq!(server("@upstash/context7-mcp"), some("upstash/context7-mcp"));
        assert_eq!(server("@playwright/mcp@latest"), some("playwright"));
        assert_eq!(server("servers/weather-mcp.py"), some("weather"));
        assert_eq!(server("/srv/mcp.mjs"), some("mcp"));
        assert_eq!(server("mcp_server_time"), some("time"));
        for other in ["node", "agent.mjs", "mcpx", "/usr/bin/git", "-m", "--mcp-config", ""] {
            assert_eq!(server(other), None, "{other}");
        }
    }

    #[test]
    fn helpers_are_told_by_their_arguments() {
        let helpers = &Catalogue::embedded().credential_helpers;
        let aws = helpers.iter().find(|helper| helper.name == "aws").unwrap();
        let asked = |line: &str| aws.is_asked(&line.split(' ').collect::<Vec<_>>());
        assert!(asked("aws configure export-credentials --profile x"));
        assert!(asked("aws --region eu-west-1 sts assume-role --role-arn x"));
        assert!(
            !asked("aws s3 ls") && !asked("aws --version") && !asked("aws sts get-caller-identity")
        );
        let vault = helpers.iter().find(|helper| helper.name == "aws-vault").unwrap();
        assert!(vault.is_asked(&["aws-vault", "exec"]));
    }
}
