//! `tracer report --format otlp` and `--otlp-endpoint`: a recording as log records.

use std::{
    io::{self, BufWriter, Write},
    path::Path,
};

use anyhow::Context as _;
use tracer::{
    cli::{self, exit},
    otlp::{Collector, LogRecord, Logs, Sender},
    policy::{self, Judged},
    record::{self, Existing, Reader},
};

/// Log records of one line.
const LINE: usize = 512;

pub(crate) fn export(arguments: &cli::Report) -> anyhow::Result<u8> {
    match &arguments.otlp_endpoint {
        Some(collector) => send(&arguments.recording, collector.clone()),
        None => write(arguments),
    }
}

/// The log records, one after the other. Gives whether the recording is as it was written.
fn each(recording: &Path, mut to: impl FnMut(&Logs, LogRecord)) -> anyhow::Result<bool> {
    let reader = Reader::open(recording, false)?;
    let start = reader.start().clone();
    let mut logs = Logs::new(&start);
    let judged = policy::judge_recording(recording, reader, start, &mut |record, _| {
        for log in logs.of(record) {
            to(&logs, log);
        }
    })?;
    let Judged { story, verdict, .. } = judged;
    if let Some(end) = &story.end {
        for log in logs.end(end, verdict.as_ref()) {
            to(&logs, log);
        }
    }
    Ok(crate::is_whole(&story.integrity))
}

fn code(whole: bool) -> u8 {
    if whole { exit::PROVEN } else { exit::INCONCLUSIVE }
}

fn send(recording: &Path, collector: Collector) -> anyhow::Result<u8> {
    let start = Reader::open(recording, false)?.start().clone();
    let process = crate::start_sender(collector)?;
    let mut sender = Sender::new(Box::new(process), &Logs::new(&start));
    sender.start().context("cannot start a thread")?;
    let whole = each(recording, |_, log| sender.send_patiently(log))?;
    let delivery = sender.finish();
    tracer::notice(&delivery);
    Ok(if delivery.is_whole() { code(whole) } else { exit::TRACER_FAILED })
}

fn write(arguments: &cli::Report) -> anyhow::Result<u8> {
    let file = arguments.output.as_deref().filter(|path| *path != Path::new("-"));
    if let Some(file) = file {
        super::refuse_input(file, [arguments.recording.as_path()])?;
    }
    let out: Box<dyn Write> = match file {
        None => Box::new(io::stdout().lock()),
        Some(path) => Box::new(
            record::create_output(path, Existing::forced(arguments.force)).with_context(|| {
                format!(
                    "cannot write the log records {}; give another file with --output",
                    path.display()
                )
            })?,
        ),
    };
    let mut lines = Lines { out: BufWriter::new(out), waiting: Vec::new(), result: Ok(()) };
    let mut resource = None;
    let whole = each(&arguments.recording, |logs, log| {
        resource.get_or_insert_with(|| logs.message(Vec::new()));
        lines.waiting.push(log);
        if lines.waiting.len() == LINE {
            lines.line(logs);
        }
    })?;
    if let Some(mut message) = resource {
        message.resource_logs[0].scope_logs[0].log_records = std::mem::take(&mut lines.waiting);
        lines.write(&message);
    }
    match lines.result.and_then(|()| lines.out.flush()) {
        // A reader that has gone away, as behind `| head`, is no failure.
        Err(error) if file.is_some() || error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write the log records")
        }
        _ => Ok(code(whole)),
    }
}

struct Lines {
    out: BufWriter<Box<dyn Write>>,
    waiting: Vec<LogRecord>,
    result: io::Result<()>,
}

impl Lines {
    fn line(&mut self, logs: &Logs) {
        let message = logs.message(std::mem::take(&mut self.waiting));
        self.write(&message);
    }

    fn write(&mut self, message: &tracer::otlp::LogsData) {
        if self.result.is_ok() && !message.resource_logs[0].scope_logs[0].log_records.is_empty() {
            let written = serde_json::to_writer(&mut self.out, message).map_err(io::Error::from);
            self.result = written.and_then(|()| self.out.write_all(b"\n"));
        }
    }
}
