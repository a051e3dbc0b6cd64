//! `tracer report`.

use std::{
    io::{self, BufWriter, Write},
    path::Path,
};

use anyhow::Context as _;
use tracer::{
    cli::{self, Format, exit},
    policy::Verdict,
    record::{self, Existing},
    report::{self, Detail, Paint, Summary},
    session::{
        Story,
        excerpt::{self, Limits},
    },
};

pub(crate) fn report(arguments: &cli::Report) -> anyhow::Result<u8> {
    if arguments.otlp_endpoint.is_some() || arguments.format == Format::Otlp {
        return super::export(arguments);
    }
    let recording = arguments.recording.as_path();
    let file = arguments.output.as_deref().filter(|path| *path != Path::new("-"));
    if let Some(file) = file {
        super::refuse_input(file, [recording])?;
    }
    let limits = match arguments.format {
        Format::Text | Format::Markdown | Format::Html if !arguments.all => Limits::USUAL,
        Format::Text
        | Format::Markdown
        | Format::Html
        | Format::Json
        | Format::Perfetto
        | Format::Otlp => Limits::NONE,
    };
    let (story, verdict) = excerpt::read(recording, limits)?;
    let integrity = story.integrity.clone();
    match file {
        None => {
            anyhow::ensure!(
                !tracer::run::stdout_was_closed(),
                "cannot print the report to standard output, which is closed; give a file with --output"
            );
            let paint = Paint::for_stream(&io::stdout());
            let written =
                write(arguments, story, verdict.as_ref(), paint, &mut io::stdout().lock());
            super::unless_nobody_reads(written)?;
        }
        Some(path) => record::create_output(path, Existing::forced(arguments.force))
            .and_then(|mut file| {
                Ok(write(arguments, story, verdict.as_ref(), Paint::OFF, &mut file)?)
            })
            .with_context(|| {
                format!(
                    "cannot write the report {}; give another file with --output",
                    path.display()
                )
            })?,
    }
    Ok(if crate::is_whole(&integrity) { exit::PROVEN } else { exit::INCONCLUSIVE })
}

/// Of a long recording the story is let go of before the report is written, where the summary suffices.
fn write(
    arguments: &cli::Report,
    story: Story,
    verdict: Option<&Verdict>,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    match arguments.format {
        Format::Text => {
            out.write_all(report::text(&story, verdict, Detail::Full, paint).as_bytes())?;
        }
        Format::Markdown => {
            let document = report::markdown(&story, verdict, &arguments.recording);
            out.write_all(document.as_bytes())?;
        }
        Format::Html => report::html(&summary(story, verdict), &mut out)?,
        Format::Json => report::json(&summary(story, verdict), &mut out)?,
        Format::Perfetto => report::perfetto(&summary(story, verdict), &mut out)?,
        // Made while the recording is read, not of the story (see `export`).
        Format::Otlp => {}
    }
    out.flush()
}

fn summary(story: Story, verdict: Option<&Verdict>) -> Summary {
    Summary::of(&story, verdict)
}
