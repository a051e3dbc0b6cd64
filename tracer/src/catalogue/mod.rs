//! The catalogue of programs: what a name in a policy stands for.

use serde::Deserialize;

/// A program that policies can name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    pub name: String,
    #[serde(default)]
    pub file_names: Vec<String>,
    #[serde(default)]
    pub python_modules: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    program: Vec<Program>,
}

/// The catalogue that is part of tracer.
///
/// # Panics
/// If the embedded file is malformed, which a test rules out.
#[expect(clippy::expect_used, reason = "the file is embedded and a test reads it")]
fn embedded() -> Vec<Program> {
    toml::from_str::<File>(include_str!("programs.toml")).expect("programs.toml").program
}

/// The entry of that name. A name the catalogue does not have stands for files of that name.
pub fn program(name: &str) -> Program {
    let mut program =
        embedded().into_iter().find(|program| program.name == name).unwrap_or_else(|| Program {
            name: name.into(),
            file_names: Vec::new(),
            python_modules: Vec::new(),
        });
    if program.file_names.is_empty() {
        program.file_names.push(name.into());
    }
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_stand_for_themselves() {
        assert_eq!(program("aws").python_modules, ["awscli"]);
        assert_eq!(program("zzz").file_names, ["zzz"]);
    }
}
