//! The end of a run: what is still to be read, the counters, the verdict and the last line.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tracer_ebpf::abi::{Fault, Kind};

use super::{
    Finished, RunError, clock::boottime_ns, collector::Collector, launch::LaunchError,
    live::Session,
};
use crate::{
    model::{Device, FileId},
    policy,
    probe::FinalCounters,
    record::{
        Record,
        schema::{CommandStatus, CounterRow, End, LedgerRow, Witness},
    },
};

/// How long records that are already reserved may take to be submitted after detaching.
const SETTLE_WAIT: Duration = Duration::from_secs(1);

impl Session {
    /// Detaches, drains to the last record and takes the counters.
    pub(super) async fn end(
        &mut self,
        status: CommandStatus,
        witness: Witness,
    ) -> Result<End, RunError> {
        self.check_now();
        self.attached.detach();
        let counters = self.settle().await?;
        let collector = &mut self.collector;
        collector.settle()?;
        let t_ns = boottime_ns()?;
        collector.exchanges(t_ns, &counters.flows, &counters.elsewhere);
        Ok(End {
            t_ns,
            command_status: status,
            interrupted: self.interrupted,
            counters: counter_rows(&counters, collector),
            canary_events: named(&collector.fold.canary_events),
            faults: Fault::ALL
                .iter()
                .map(|fault| (fault.name().to_owned(), counters.fault(*fault)))
                .filter(|(_, count)| *count > 0)
                .collect(),
            skipped_runs: named(&counters.skipped_runs),
            damaged_records: collector.drain.damaged
                + u64::try_from(collector.fold.unclaimed_argv()).unwrap_or(u64::MAX),
            witness,
            canaries: std::mem::take(&mut self.canaries),
            ledger: counters
                .ledger
                .iter()
                .map(|(file, execs)| LedgerRow {
                    file: FileId { device: Device(file.device), inode: file.inode },
                    execs: *execs,
                })
                .collect(),
            survivors: collector.kept.story.alive.iter().copied().collect(),
            files: Some(collector.watch.events()),
            credentials: Some(collector.watch.credentials.events()),
            maps: collector.maps_watched(),
            hosts: collector.kept.hosts(),
            checks: Some(std::mem::take(&mut self.checks)),
            verdict: None,
        })
    }

    /// Drains until everything the kernel submitted was read and the counters stand still, which
    /// a probe that ran during the detach can delay by microseconds.
    async fn settle(&mut self) -> Result<FinalCounters, RunError> {
        let deadline = Instant::now() + SETTLE_WAIT;
        let mut before = None;
        loop {
            self.drain()?;
            let counters = self.attached.counters()?;
            let drain = &self.collector.drain;
            let read = drain.read.values().sum::<u64>() + drain.damaged;
            let settled = read == counters.submitted() && before == Some(read);
            if settled || Instant::now() >= deadline {
                return Ok(counters);
            }
            before = Some(read);
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Judges and writes the last line.
    pub(super) fn finish(
        self,
        end: End,
        policies: &[policy::Policy],
        status: CommandStatus,
        launch_error: Option<LaunchError>,
    ) -> Finished {
        let mut collector = self.collector;
        let watches = collector.watch.queues().unwrap_or_default();
        let watches: Vec<_> = watches.iter().map(OwnedFd::as_fd).collect();
        // The kernel takes long to forget what they mark. If they cannot be given away, they end with this.
        let _ = self.broker.close_later(&watches);
        collector.kept.story.add(Record::End(Box::new(end.clone())));
        let verdict = policy::judge(&collector.kept.story, policies);
        let end = Record::End(Box::new(End { verdict: verdict.clone(), ..end }));
        collector.kept.write(&end);
        collector.kept.flush();
        let delivery = collector.kept.deliver(verdict.as_ref());
        Finished {
            delivery,
            story: collector.kept.story,
            verdict,
            status,
            launch_error,
            write_error: collector.kept.write_error,
        }
    }
}

fn named(counts: &BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

fn counter_rows(counters: &FinalCounters, collector: &Collector) -> Vec<CounterRow> {
    let mut rows = Vec::new();
    for (cpu, stats) in (0u32..).zip(&counters.stats) {
        for kind in Kind::ALL {
            let counted = &stats.kinds[*kind as usize];
            let read = collector.drain.read.get(&(cpu, *kind)).copied().unwrap_or(0);
            if counted.produced > 0 || read > 0 {
                rows.push(CounterRow {
                    cpu,
                    kind: kind.name().into(),
                    produced: counted.produced,
                    lost: counted.lost,
                    read,
                });
            }
        }
    }
    rows
}
