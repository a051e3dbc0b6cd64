//! `tracer doctor`, for people and for programs.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::doctor;
use crate::harness::Scratch;

/// Both are the same findings, and the schema describes them.
pub(super) fn as_json(scratch: &Scratch) -> Result<()> {
    let json = doctor(scratch)?;
    let output = scratch.tracer(&["doctor"]).output()?;
    output.exits(0)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(json["schema"] == 1 && json["usable"] == true, "{json}");
    let line = |name: &str| {
        let found =
            text.lines().find(|line| line.get(..22).is_some_and(|field| field.trim() == name));
        found.with_context(|| format!("no line `{name}` in\n{text}"))
    };
    let lines = |name: &str| -> Vec<&str> {
        text.lines()
            .filter(|line| line.get(..22).is_some_and(|field| field.trim() == name))
            .collect()
    };
    let list = |name: &str| json[name].as_array().with_context(|| name.to_owned());
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for found in list("capabilities")? {
        // One for each thing that it is needed for.
        let lines = lines(&word(&found["name"]));
        let line = lines.iter().find(|line| line.contains(&word(&found["to"])));
        let line = line.with_context(|| format!("no line for {found} in\n{text}"))?;
        ensure!(line.contains("held") == (found["held"] == true), "{line}");
    }
    ensure!(list("sensors")?.len() > 10);
    for found in list("sensors")? {
        let line = line(&format!("sensor {}", word(&found["sensor"])))?;
        ensure!(line.contains("NO:") != found["missing"].is_null(), "{line}");
        ensure!(line.contains(&word(&found["hook"])), "{line}");
    }
    for (field, name) in [
        ("type_information", "type information"),
        ("exec_witness", "exec witness"),
        ("cgroup", "cgroup of the command"),
    ] {
        let (line, found) = (line(name)?, &json[field]);
        ensure!(line.contains("NO:") != (found["ok"] == true), "{line}");
    }
    for (program, count) in json["verified_instructions"].as_object().context("no programs")? {
        ensure!(
            line("verified instructions")?.contains(&format!("{program} {count}")),
            "{program}"
        );
    }
    let landlock = json["sandbox"]["landlock"].as_u64();
    let says = landlock.map_or("no Landlock".to_owned(), |version| format!("Landlock {version}"));
    ensure!(line("sandbox of tracer")?.contains(&says), "{text}");

    let schema = scratch.tracer(&["schema", "doctor"]).output()?;
    schema.exits(0)?;
    let schema: Value = serde_json::from_slice(&schema.stdout)?;
    let described = schema["properties"].as_object().context("no properties")?;
    let fields: Vec<&String> = json.as_object().context("no object")?.keys().collect();
    ensure!(fields.len() == described.len(), "{fields:?}");
    ensure!(fields.iter().all(|field| described.contains_key(*field)), "{fields:?}");
    Ok(())
}
