//! The documentation's pictures: report pages of the golden recordings, photographed.

use std::{fs, process::ExitCode};

use anyhow::{Context as _, Result};

use crate::{
    build,
    command::{self, IfFails},
    layout::Layout,
    setup,
};

const RECORDINGS: &str = "tracer/tests/golden/reports";
const PICTURES: &str = "docs/pictures";

pub(crate) fn task(layout: &Layout) -> Result<ExitCode> {
    let tools = setup::everything(layout)?;
    build::everything(layout, &tools, &build::Options::default())?;
    let pages = layout.target().join("pages");
    fs::create_dir_all(&pages).with_context(|| format!("cannot create {}", pages.display()))?;
    let if_fails = IfFails {
        it_means: "the pictures are as they were before, or some of them",
        remedy: "read the messages above; without Chromium, run `cargo xtask setup`",
    };
    let recordings = layout.root().join(RECORDINGS);
    for entry in fs::read_dir(&recordings)
        .with_context(|| format!("cannot list {}", recordings.display()))?
    {
        let recording = entry?.path();
        if recording.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        let page = pages.join(recording.file_stem().unwrap_or_default()).with_extension("html");
        let mut tracer = command::program(layout, layout.release("tracer"));
        tracer.args(["report", "--format", "html", "--force", "--output"]).arg(page).arg(recording);
        command::run_shown(&mut tracer, if_fails)?;
    }
    let member = |group: &str, name: &str| {
        format!("{group}={}", recordings.join(name).with_extension("jsonl").display())
    };
    let mut tracer = command::program(layout, layout.release("tracer"));
    tracer.args(["compare", "--format", "html", "--force", "--output"]);
    tracer.arg(pages.join("comparison.html"));
    tracer.args([member("sdk", "proven"), member("sdk", "inconclusive")]);
    tracer.args([member("cli", "violated"), member("cli", "handed-over")]);
    command::run_shown(&mut tracer, if_fails)?;
    let mut pictures = command::program(layout, layout.release("tracer-pictures"));
    command::run_shown(pictures.arg(pages).arg(PICTURES), if_fails)?;
    Ok(ExitCode::SUCCESS)
}
