//! The command line, described for shells and for man.

use std::{io, path::Path};

use clap::{Args, Command, CommandFactory as _};
use clap_complete::Shell;

use super::Cli;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tracer completions bash > ~/.local/share/bash-completion/completions/tracer
  tracer completions fish > ~/.config/fish/completions/tracer.fish
  tracer completions zsh > ~/.zfunc/_tracer")]
pub struct Completions {
    /// Which shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tracer man ~/.local/share/man/man1
  tracer man /tmp/man | xargs man")]
pub struct Man {
    /// A folder, made if it is missing; one file for each command
    #[arg(value_name = "DIR")]
    pub folder: std::path::PathBuf,
}

/// The completion script of a shell.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut visible(&Cli::command()), "tracer", &mut script);
    script
}

/// The same without what is hidden, which the scripts would offer all the same.
fn visible(command: &Command) -> Command {
    let mut shown = Command::new(command.get_name().to_owned());
    shown = shown.args(command.get_arguments().filter(|option| !option.is_hide_set()).cloned());
    if let Some(version) = command.get_version() {
        shown = shown.version(version.to_owned());
    }
    if let Some(about) = command.get_about() {
        shown = shown.about(about.clone());
    }
    shown.subcommands(command.get_subcommands().filter(|own| !own.is_hide_set()).map(visible))
}

/// Writes one page for tracer and one for each command, and gives their paths.
pub fn man_pages(folder: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    std::fs::create_dir_all(folder)?;
    let mut command = Cli::command();
    command.build();
    let mut pages = Vec::new();
    let mut commands = vec![command];
    while let Some(command) = commands.pop() {
        let page = clap_mangen::Man::new(command.clone());
        let path = folder.join(page.get_filename());
        let mut text = Vec::new();
        page.render(&mut text)?;
        std::fs::write(&path, text)?;
        pages.push(path);
        commands
            .extend(command.get_subcommands().filter(|command| !command.is_hide_set()).cloned());
    }
    pages.sort();
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_completes_commands_and_options() {
        for shell in Shell::value_variants() {
            let script = String::from_utf8(completions(*shell)).unwrap();
            for word in ["verify", "report", "policy", "linger"] {
                assert!(script.contains(word), "{shell}: no {word}");
            }
            assert!(!script.contains("debug-"), "{shell}: hidden options are offered");
        }
    }

    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        let pages = man_pages(&folder.path().join("man1")).unwrap();
        let names: Vec<_> =
            pages.iter().map(|page| page.file_name().unwrap().to_str().unwrap()).collect();
        for name in ["tracer.1", "tracer-run.1", "tracer-verify.1", "tracer-policy-check.1"] {
            assert!(names.contains(&name), "{names:?}");
        }
        let run = std::fs::read_to_string(&pages[names.binary_search(&"tracer-run.1").unwrap()]);
        let run = run.unwrap();
        assert!(run.contains("linger") && run.contains("Exit codes"), "{run}");
        assert!(!run.contains("debug"), "hidden options are shown:\n{run}");
    }
}
