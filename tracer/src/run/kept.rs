//! What becomes of records: each is written, and added to what the verdict is made of.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read as _},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::SenderProcess;
use crate::{
    catalogue::Catalogue,
    otlp::{self, Delivery, Logs},
    policy::Verdict,
    protocol::hosts::Hosts,
    record::{
        Record, Writer,
        schema::{HandOff, HostsEntry, Start},
    },
    session::{HandOffs, Story},
};

/// Who watches a recording grow, or finds one that was cut short, misses no more than this.
const FLUSH_EVERY: Duration = Duration::from_millis(50);

/// The story, the recording, and what is told of both.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) story: Story,
    hand_offs: HandOffs,
    hosts: Hosts,
    /// Addresses that were contacted and that the file of hosts names.
    named: BTreeSet<IpAddr>,
    writer: Option<Writer>,
    /// When what was written is to be in the file.
    pub(super) flush_at: Option<Instant>,
    export: Option<Export>,
    /// The first error of the recording. Tracing goes on; the recording does not.
    pub(super) write_error: Option<io::Error>,
}

/// What goes to a collector.
#[derive(Debug)]
struct Export {
    logs: Logs,
    sender: otlp::Sender,
}

impl Kept {
    /// With `whole`, the story has everything that a report shows; otherwise what the verdict needs, and
    /// memory does not grow with time where that allows it ([`Story::for_verdict`]).
    pub(super) fn new(
        start: Start,
        whole: bool,
        catalogue: Catalogue,
        writer: Option<Writer>,
        sender: Option<SenderProcess>,
    ) -> Kept {
        let export = sender.map(|process| {
            let logs = Logs::new(&start);
            Export { sender: otlp::Sender::new(Box::new(process), &logs), logs }
        });
        Kept {
            export,
            story: if whole { Story::new(start) } else { Story::for_verdict(start) },
            hand_offs: HandOffs::new(catalogue),
            hosts: read_hosts(),
            named: BTreeSet::new(),
            writer,
            flush_at: None,
            write_error: None,
        }
    }

    /// From here on there may be threads.
    pub(super) fn start_sending(&mut self) -> io::Result<()> {
        self.export.as_mut().map_or(Ok(()), |export| export.sender.start())
    }

    pub(super) fn accept(&mut self, record: Record) {
        self.hand_on(&record);
        self.notice_names(&record);
        let is_contact = matches!(
            record,
            Record::LocalSend(_)
                | Record::Intrusion(_)
                | Record::OddSocket(_)
                | Record::Connect(_)
                | Record::ConnectResult(_)
                | Record::Close(_)
                | Record::ForeignSend(_)
                | Record::FoundSocket(_)
        );
        let contact = is_contact.then(|| record.clone());
        self.story.add(record);
        let hand_off = contact.and_then(|record| self.hand_offs.of(&record, &self.story));
        hand_off.into_iter().for_each(|hand_off| self.handed_off(hand_off));
    }

    /// After the last record: hand-offs that one more record could have told better.
    pub(super) fn accept_rest(&mut self) {
        let rest = self.hand_offs.rest(&self.story);
        rest.into_iter().for_each(|hand_off| self.handed_off(hand_off));
    }

    fn handed_off(&mut self, hand_off: HandOff) {
        let record = Record::HandOff(hand_off);
        self.hand_on(&record);
        self.story.add(record);
    }

    fn hand_on(&mut self, record: &Record) {
        self.write(record);
        if let Some(Export { logs, sender }) = &mut self.export {
            logs.of(record).into_iter().for_each(|log| sender.send(log));
        }
    }

    /// The collector gets the verdict, and some time to take what is left. None where there is no
    /// collector.
    pub(super) fn deliver(&mut self, verdict: Option<&Verdict>) -> Option<Delivery> {
        let Export { mut logs, mut sender } = self.export.take()?;
        let last = self.story.end.as_ref().map(|end| logs.end(end, verdict)).unwrap_or_default();
        last.into_iter().for_each(|log| sender.send(log));
        Some(sender.finish())
    }

    fn notice_names(&mut self, record: &Record) {
        let destination = if let Record::Connect(connect) = record {
            connect.destination
        } else if let Record::Datagram(datagram) = record {
            datagram.destination
        } else {
            None
        };
        let address = destination.map(|to| to.address.to_canonical());
        self.named.extend(address.filter(|address| !self.hosts.names(*address).is_empty()));
    }

    /// What the file of hosts says about the addresses that were contacted.
    pub(super) fn hosts(&self) -> Vec<HostsEntry> {
        let entry = |address: &IpAddr| HostsEntry {
            address: *address,
            names: self.hosts.names(*address).to_vec(),
        };
        self.named.iter().map(entry).collect()
    }

    /// Writes a record that is no part of the story.
    pub(super) fn write(&mut self, record: &Record) {
        if let Some(writer) = &mut self.writer
            && let Err(error) = writer.write(record)
        {
            self.write_error.get_or_insert(error);
            self.writer = None;
        }
    }

    /// A call of the kernel for each batch would be a tenth of what tracer costs under load.
    pub(super) fn flush_soon(&mut self) {
        let now = Instant::now();
        if *self.flush_at.get_or_insert(now + FLUSH_EVERY) <= now {
            self.flush();
        }
    }

    pub(super) fn flush(&mut self) {
        self.flush_at = None;
        if let Some(writer) = &mut self.writer
            && let Err(error) = writer.flush()
        {
            self.write_error.get_or_insert(error);
            self.writer = None;
        }
    }
}

/// The file of hosts, as the command finds it; one that cannot be read names nothing.
fn read_hosts() -> Hosts {
    /// Larger ones are cut.
    const BYTES_MAX: u64 = 16 << 20;
    let mut bytes = Vec::new();
    let file = File::open("/etc/hosts");
    let _ = file.and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes));
    Hosts::parse(&bytes)
}
