//! Documents that hold what a command printed, between two marks.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

/// Replaces what the command has put there.
pub fn put(file: &Path, command: &str, text: &str) -> Result<()> {
    let context = || format!("cannot change {}", file.display());
    let document = fs::read_to_string(file).with_context(context)?;
    fs::write(file, replaced(&document, command, text)?).with_context(context)
}

/// The document with what the command printed now.
fn replaced(document: &str, command: &str, text: &str) -> Result<String> {
    let (before, _, after) = parts(document, command)?;
    let (begin, end) = marks(command);
    Ok(format!("{before}{begin}\n{}\n\n{end}{after}", text.trim()))
}

/// What the command has put into the document.
pub fn shown<'a>(document: &'a str, command: &str) -> Result<&'a str> {
    parts(document, command).map(|(_, shown, _)| shown)
}

/// A document with nothing else.
#[cfg(test)]
pub(crate) fn of(command: &str, text: &str) -> String {
    let (begin, end) = marks(command);
    replaced(&(begin + &end), command, text).expect("both marks are there")
}

fn parts<'a>(document: &'a str, command: &str) -> Result<(&'a str, &'a str, &'a str)> {
    let (begin, end) = marks(command);
    let (before, rest) =
        document.split_once(&begin).with_context(|| format!("the document lacks {begin:?}"))?;
    let (shown, after) =
        rest.split_once(&end).with_context(|| format!("the document lacks {end:?}"))?;
    Ok((before, shown, after))
}

fn marks(command: &str) -> (String, String) {
    (format!("<!-- measured: {command} -->\n"), format!("<!-- end of {command} -->"))
}

/// A sentence for a document: the day, the kernel, the machine, and the versions of programs.
pub fn where_and_when(programs: &[&str]) -> Result<String> {
    let day = Command::new("date")
        .args(["-u", "+%Y-%m-%d"])
        .output()
        .context("cannot ask for the day")?;
    let day = String::from_utf8_lossy(&day.stdout).trim().to_owned();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let processor = model.map_or("unknown processor", |(_, model)| model);
    let processors = std::thread::available_parallelism()?;
    let versions: Vec<String> = programs.iter().map(|program| version_of(program)).collect();
    let with = if versions.is_empty() { "" } else { ": " };
    Ok(format!(
        "On {day}, Linux {kernel}, {processors} x {processor}{with}{}.\n",
        versions.join("; ")
    ))
}

/// The first line that a program says when it is asked for its version.
fn version_of(name: &str) -> String {
    let program = crate::debian_tool(name).unwrap_or_else(|_| name.into());
    let said = Command::new(program).arg("--version").output();
    let Ok(said) = said else { return format!("no {name}") };
    let said = String::from_utf8_lossy(&said.stdout);
    let line = said.lines().next().unwrap_or_default().trim();
    if line.contains(name) { line.to_owned() } else { format!("{name} {line}") }
}
