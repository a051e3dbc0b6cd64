//! Between the rings and everything that consumes records.

use std::io;

use super::{engine::boottime_ns, machine::LiveMachine, watch::Watch};
use crate::{
    catalogue::Catalogue,
    ingest::Drain,
    model::Event,
    probe::Rings,
    record::{
        Record, Writer,
        schema::{Content, Start},
    },
    session::{self, Fold, Story},
};

/// Drains, folds, writes, and keeps the story up to date.
#[derive(Debug)]
pub(super) struct Collector {
    pub(super) drain: Drain,
    pub(super) fold: Fold,
    pub(super) story: Story,
    pub(super) watch: Watch,
    rings: Rings,
    machine: LiveMachine,
    writer: Option<Writer>,
    /// The first error of the recording. Tracing goes on; the recording does not.
    pub(super) write_error: Option<io::Error>,
}

impl Collector {
    pub(super) fn new(
        rings: Rings,
        machine: LiveMachine,
        watch: Watch,
        start: Start,
        writer: Option<Writer>,
    ) -> Collector {
        let mut collector = Collector {
            drain: Drain::default(),
            fold: Fold::default(),
            story: Story::new(start.clone()),
            watch,
            rings,
            machine,
            writer,
            write_error: None,
        };
        for copy in start.known_programs.values().flatten() {
            collector.machine.read_known(copy.path.as_path());
        }
        collector.write(&Record::Start(Box::new(start)));
        collector.flush();
        collector
    }

    pub(super) fn rings(&self) -> &Rings {
        &self.rings
    }

    /// Handles everything that is in the rings. Returns how many records there were.
    pub(super) fn round(&mut self) -> io::Result<usize> {
        self.watch.collect(self.machine.identifier(), boottime_ns)?;
        let Collector { drain, fold, story, rings, machine, writer, write_error, .. } = self;
        let mut sink = |event: Event| {
            if let Some(record) = fold.apply(event, machine) {
                accept(record, story, writer, write_error);
            }
        };
        let count = drain.round(rings, &mut sink);
        if count > 0 {
            self.early(false);
            self.attempts(false);
            let finished = self.machine.contents().finished();
            self.contents(finished);
        }
        let seen = self.watch.attribute(&self.story, false);
        if count > 0 || !seen.is_empty() {
            self.accept(seen);
            self.flush();
        }
        Ok(count)
    }

    /// The command has been started as this process.
    pub(super) fn launched(&mut self, pid: u32) -> io::Result<()> {
        self.watch.inherited(pid, boottime_ns()?);
        Ok(())
    }

    fn accept(&mut self, records: Vec<Record>) {
        for record in records {
            accept(record, &mut self.story, &mut self.writer, &mut self.write_error);
        }
    }

    fn contents(&mut self, finished: Vec<Content>) {
        self.accept(finished.into_iter().map(Record::Content).collect());
    }

    /// Net events that came before their process.
    fn early(&mut self, all: bool) {
        for event in self.fold.take_early(all) {
            if let Some(record) = self.fold.record(event, &mut self.machine) {
                accept(record, &mut self.story, &mut self.writer, &mut self.write_error);
            }
        }
    }

    fn attempts(&mut self, all: bool) {
        for attempt in self.fold.take_attempts(all) {
            let record = Record::Attempt(attempt);
            accept(record, &mut self.story, &mut self.writer, &mut self.write_error);
        }
    }

    /// After the last round: nothing more will introduce a process.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        self.early(true);
        self.attempts(true);
        self.watch.collect(self.machine.identifier(), boottime_ns)?;
        let mut seen = self.watch.attribute(&self.story, true);
        seen.extend(self.watch.replaced(boottime_ns()?));
        self.accept(seen);
        let rest = self.machine.contents().rest();
        self.contents(rest);
        self.flush();
        Ok(())
    }

    /// After settling: what the story's contacts with processes outside the tree amount to.
    pub(super) fn hand_offs(&mut self, catalogue: &Catalogue) {
        for hand_off in session::hand_offs(&self.story, catalogue) {
            let record = Record::HandOff(hand_off);
            accept(record, &mut self.story, &mut self.writer, &mut self.write_error);
        }
    }

    /// Writes a record that is no event.
    pub(super) fn write(&mut self, record: &Record) {
        write(record, &mut self.writer, &mut self.write_error);
    }

    pub(super) fn flush(&mut self) {
        if let Some(writer) = &mut self.writer
            && let Err(error) = writer.flush()
        {
            self.write_error.get_or_insert(error);
            self.writer = None;
        }
    }
}

fn accept(
    record: Record,
    story: &mut Story,
    writer: &mut Option<Writer>,
    write_error: &mut Option<io::Error>,
) {
    write(&record, writer, write_error);
    story.add(record);
}

fn write(record: &Record, writer: &mut Option<Writer>, write_error: &mut Option<io::Error>) {
    if let Some(open) = writer
        && let Err(error) = open.write(record)
    {
        write_error.get_or_insert(error);
        *writer = None;
    }
}
