//! Recordings as their lines are, read without tracer's own types.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

#[derive(Debug)]
pub(super) struct Recording {
    pub(super) records: Vec<Value>,
}

impl Recording {
    pub(super) fn read(file: &Path) -> Result<Recording> {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let records = text.lines().map(serde_json::from_str).collect::<Result<Vec<_>, _>>()?;
        ensure!(!records.is_empty(), "{} is empty", file.display());
        Ok(Recording { records })
    }

    pub(super) fn of_type<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Value> {
        self.records.iter().filter(move |record| record["type"] == name)
    }

    pub(super) fn end(&self) -> Result<&Value> {
        self.of_type("end").next().context("there is no end record")
    }

    /// The one record of that type whose value at a JSON pointer is this.
    pub(super) fn one<'a>(
        &'a self,
        kind: &'a str,
        at: &str,
        is: impl Into<Value>,
    ) -> Result<&'a Value> {
        let is = is.into();
        let found: Vec<_> =
            self.of_type(kind).filter(|record| record.pointer(at) == Some(&is)).collect();
        match found.as_slice() {
            [one] => Ok(one),
            several => {
                let all: Vec<_> = self
                    .of_type(kind)
                    .map(|record| record.pointer(at).unwrap_or(&Value::Null))
                    .collect();
                bail!("{} {kind} records have {is} at {at}, not 1: {all:?}", several.len())
            }
        }
    }

    /// The exec whose argv begins with these words.
    pub(super) fn exec(&self, argv: &[&str]) -> Result<&Value> {
        let begins = |exec: &Value| {
            let args = exec["argv"]["args"].as_array();
            args.is_some_and(|args| {
                args.len() >= argv.len() && args.iter().zip(argv).all(|(arg, word)| arg == word)
            })
        };
        let all: Vec<_> = self.of_type("exec").filter(|exec| begins(exec)).collect();
        match all.as_slice() {
            [one] => Ok(one),
            several => {
                bail!("{} execs have an argv that begins with {argv:?}, not 1", several.len())
            }
        }
    }

    pub(super) fn execs(&self) -> usize {
        self.of_type("exec").count()
    }

    /// The execs that the kernel counted by itself: with a counter if there was a policy, and in each
    /// process.
    pub(super) fn witnessed(&self) -> Result<usize> {
        let witness = &self.end()?["witness"];
        let of_exit = |exit: &Value| {
            exit["execs"].as_u64().with_context(|| format!("an exit without a count: {exit}"))
        };
        let numbered: u64 = self.of_type("exit").map(of_exit).sum::<Result<u64>>()?;
        let counted = match witness["counted"].as_u64() {
            Some(counted) => counted,
            None => {
                ensure!(witness == "not-asked", "witness: {witness}");
                numbered
            }
        };
        ensure!(counted == numbered, "{counted} counted, and {numbered} by the numbers of images");
        Ok(usize::try_from(counted)?)
    }
}

/// Compares a value in a record with what it must be.
pub(super) fn expect(record: &Value, at: &str, is: impl Into<Value>) -> Result<()> {
    let (found, is) = (record.pointer(at).unwrap_or(&Value::Null), is.into());
    ensure!(*found == is, "{at} is {found}, not {is}");
    Ok(())
}
