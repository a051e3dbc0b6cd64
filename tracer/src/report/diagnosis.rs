//! What `tracer doctor` found out, as text and as JSON.

use std::{collections::BTreeMap, fmt::Write as _};

use schemars::JsonSchema;
use serde::Serialize;

/// The version of [`Diagnosis`]. It grows when a field changes its meaning or goes.
pub const DIAGNOSIS: u32 = 1;

/// What this machine allows.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Diagnosis {
    /// Version of this object.
    pub schema: u32,
    /// Version and commit of tracer.
    pub tracer: String,
    /// `uname -r`.
    pub kernel: String,
    /// Architecture.
    pub machine: String,
    /// The kernel's lockdown mode; none when it does not say.
    pub lockdown: Option<String>,
    /// Effective user id.
    pub euid: u32,
    pub capabilities: Vec<CapabilityFinding>,
    pub type_information: Finding,
    /// The kernel's own count of execs.
    pub exec_witness: Finding,
    /// A cgroup for the command alone.
    pub cgroup: Finding,
    /// What tracer confines itself with.
    pub sandbox: SandboxFinding,
    /// Why the probes could not be loaded at all.
    pub sensors_refused: Option<String>,
    pub sensors: Vec<SensorFinding>,
    /// By program, how many instructions the kernel's verifier walked.
    pub verified_instructions: BTreeMap<String, u32>,
    /// Whether `tracer run` can work here.
    pub usable: bool,
}

/// Whether something is there.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Finding {
    pub ok: bool,
    /// What it is, or why there is none.
    pub detail: String,
    /// What follows where there is none.
    pub without: Option<String>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CapabilityFinding {
    /// As capabilities(7) has it.
    pub name: String,
    /// tracer has it, or one that includes it.
    pub held: bool,
    /// When it is needed.
    pub needed: String,
    /// What for.
    pub to: String,
    /// What follows without it; nothing is started where there is none.
    pub without: Option<String>,
}

/// Where the kernel has nothing of the kind, tracer works without.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SandboxFinding {
    /// The version of Landlock's interface.
    pub landlock: Option<u32>,
    /// Whether system calls can be filtered.
    pub seccomp: bool,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SensorFinding {
    pub sensor: String,
    /// Where it is attached.
    pub hook: Option<String>,
    /// What it is for.
    pub purpose: String,
    /// Why it is not there.
    pub missing: Option<String>,
    pub cannot_see: String,
    /// What it costs other processes; empty when it costs them nothing.
    pub tax: String,
}

impl Finding {
    pub(crate) fn of<T, E: std::fmt::Display>(
        result: &Result<T, E>,
        detail: impl FnOnce(&T) -> String,
        without: &str,
    ) -> Finding {
        match result {
            Ok(value) => Finding { ok: true, detail: detail(value), without: None },
            Err(error) => {
                let without = Some(without.to_owned()).filter(|text| !text.is_empty());
                Finding { ok: false, detail: error.to_string(), without }
            }
        }
    }

    fn text(&self) -> String {
        match (self.ok, &self.without) {
            (true, _) => self.detail.clone(),
            (false, None) => format!("NO: {}", self.detail),
            (false, Some(without)) => format!("NO: {}; without it {without}", self.detail),
        }
    }
}

impl Diagnosis {
    /// One object and a line feed.
    pub fn json(&self) -> String {
        super::json::pretty(self)
    }

    /// For the terminal.
    pub fn text(&self) -> String {
        let mut lines = Lines(String::new());
        lines.add("tracer", &self.tracer);
        lines.add("kernel", &format!("{} ({})", self.kernel, self.machine));
        let unknown = "unknown (securityfs is not mounted, or the kernel has none)";
        lines.add("lockdown", self.lockdown.as_deref().unwrap_or(unknown));
        lines.add(
            "running as",
            &if self.euid == 0 { "root".to_owned() } else { format!("user {}", self.euid) },
        );
        for found in &self.capabilities {
            lines.add(&found.name, &found.text());
        }
        lines.add("type information", &self.type_information.text());
        lines.add("exec witness", &self.exec_witness.text());
        lines.add("cgroup of the command", &self.cgroup.text());
        lines.add("sandbox of tracer", &self.sandbox.text());
        if let Some(why) = &self.sensors_refused {
            lines.add("sensors", &format!("NO: {why}"));
        }
        for sensor in &self.sensors {
            let finding = match (&sensor.missing, &sensor.hook) {
                (Some(why), _) => format!("NO: {why}"),
                (None, hook) => format!("{}: {}", hook.as_deref().unwrap_or("?"), sensor.purpose),
            };
            lines.add(&format!("sensor {}", sensor.sensor), &finding);
            lines.more("cannot see", &sensor.cannot_see);
            lines.more("only when asked for", &sensor.tax);
        }
        if !self.verified_instructions.is_empty() {
            let counts = self.verified_instructions.iter();
            let counts: Vec<String> =
                counts.map(|(program, count)| format!("{program} {count}")).collect();
            lines.add("verified instructions", &counts.join(", "));
        }
        let verdict = if self.usable {
            "tracer run works here"
        } else {
            "tracer run does not work here: see the lines with NO"
        };
        lines.add("verdict", verdict);
        lines.0
    }
}

impl CapabilityFinding {
    fn text(&self) -> String {
        let CapabilityFinding { needed, to, without, .. } = self;
        if self.held {
            format!("held; needed {needed}: {to}")
        } else {
            let without = without.as_deref().unwrap_or("nothing is started");
            format!("NO; needed {needed}: {to}; without it {without}")
        }
    }
}

impl SandboxFinding {
    fn text(&self) -> String {
        let landlock = self.landlock.map_or_else(
            || "no Landlock in this kernel".to_owned(),
            |version| format!("Landlock {version}"),
        );
        let seccomp = if self.seccomp { "seccomp" } else { "no seccomp in this kernel" };
        format!("{seccomp}, {landlock}")
    }
}

struct Lines(String);

impl Lines {
    fn add(&mut self, what: &str, finding: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{what:<22} {finding}");
    }

    fn more(&mut self, what: &str, detail: &str) {
        if !detail.is_empty() {
            self.add("", &format!("{what}: {detail}"));
        }
    }
}
