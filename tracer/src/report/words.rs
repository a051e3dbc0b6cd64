//! Sentences that several formats share. All of them are clean: fit for a terminal or a page.

use super::{
    clean::{clean, command_line},
    summary::Totals,
};
use crate::{
    model::{Endpoint, ProcessKey},
    record::{
        Integrity,
        schema::{CommandCgroup, CommandStatus, Exit, Outcome, Start},
    },
    session::{Connection, NameSource, Story},
};

pub(super) fn status(status: &CommandStatus) -> String {
    match status {
        CommandStatus::Exited(code) => format!("the command exited with {code}"),
        CommandStatus::Killed(signal) => format!("signal {signal} ended the command"),
        CommandStatus::Running => "the command was still running".into(),
        CommandStatus::NoCommand => "what ran already was joined".into(),
        CommandStatus::NotStarted(why) => clean(why.as_bytes()),
    }
}

/// What was traced, in one line.
pub(crate) fn subject(start: &Start) -> String {
    match &start.attached {
        Some(attached) => format!("attached to {}", clean(attached.to.to_string().as_bytes())),
        None => command_line(&start.command),
    }
}

pub(crate) fn integrity(integrity: &Integrity) -> String {
    match integrity {
        Integrity::Intact => "every line is present and unchanged".into(),
        Integrity::CutShort => "the recording was cut short, it has no end record".into(),
        Integrity::Broken { line, reason } => {
            format!("line {line}: {}", clean(reason.as_bytes()))
        }
    }
}

pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// How much there is of everything.
pub(super) fn totals(of: &Totals) -> String {
    let mut parts = vec![
        count(of.processes, "process", "processes"),
        count(of.execs, "exec", "execs"),
        count(of.connections, "TCP connection", "TCP connections"),
    ];
    if of.datagrams > 0 {
        parts.push(count(of.datagrams, "datagram destination", "datagram destinations"));
    }
    if of.calls > 0 {
        parts.push(count(of.calls, "HTTP call", "HTTP calls"));
    }
    parts.join(", ")
}

/// How a process ended.
pub(super) fn end_of(exit: &Exit) -> String {
    match (exit.code, exit.signal) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "exit unknown".into(),
    }
}

/// What became of a connection, in a word or two.
pub(super) fn outcome(connection: &Connection) -> String {
    match connection.result.as_ref().map(|result| &result.outcome) {
        Some(Outcome::Established) => "established".into(),
        Some(Outcome::Failed { name, .. }) => clean(name.as_bytes()),
        Some(Outcome::Abandoned) => "abandoned".into(),
        Some(Outcome::Unsent) => "nothing sent".into(),
        Some(Outcome::Unknown) => "outcome unread".into(),
        None => "no outcome yet".into(),
    }
}

/// An address, where it could be read.
pub(crate) fn destination(endpoint: Option<Endpoint>) -> String {
    endpoint.map_or_else(|| "unreadable address".into(), |to| to.to_string())
}

/// What a name rests on.
pub(crate) fn name_source(source: NameSource) -> &'static str {
    match source {
        NameSource::HttpHost => "HTTP Host",
        NameSource::Sni => "SNI",
        NameSource::OwnDns => "DNS",
        NameSource::OtherDns => "DNS of another process",
        NameSource::Resolver => "getaddrinfo",
        NameSource::HostsFile => "hosts file",
    }
}

/// The program and pid of a process.
pub(super) fn label(story: &Story, key: ProcessKey) -> String {
    clean(story.label(key).as_bytes())
}

/// The command line of an exec, and who started it, up to the traced command.
pub(super) fn lineage(story: &Story, key: ProcessKey, t_ns: u64) -> String {
    const SHOWN_MAX: usize = 12;
    let mut parts = Vec::new();
    let (mut at, mut until_ns) = (Some(key), t_ns);
    while let Some(process) = at.and_then(|key| story.processes.get(&key)) {
        // The exec in question, and for the parents the program they ran when they made the next.
        let exec = process.execs.iter().rev().find(|exec| exec.t_ns <= until_ns);
        let inherited = || story.image(key, t_ns).filter(|_| parts.is_empty());
        if let Some(exec) = exec.map(AsRef::as_ref).or_else(inherited) {
            parts.push(format!("{} [{}]", command_line(&exec.argv.args), process.key.pid));
        }
        until_ns = process.born_ns;
        if parts.len() == SHOWN_MAX {
            parts.push("...".into());
            break;
        }
        at = process.creator;
    }
    parts.join(", started by ")
}

/// What no recording of these sensors can show, and what this one lacks.
pub(super) fn not_seen(story: &Story) -> Vec<String> {
    let mut lines: Vec<String> = story
        .start
        .sensors
        .iter()
        .filter(|sensor| !sensor.cannot_see.is_empty())
        .map(|sensor| format!("{} ({}): {}", sensor.sensor, sensor.hook, sensor.cannot_see))
        .map(|line| clean(line.as_bytes()))
        .collect();
    lines.push(
        "identity: programs are told apart by names, inodes and content; a changed copy under \
         another name is not recognised"
            .into(),
    );
    for (program, copies) in &story.start.known_programs {
        if copies.is_empty() {
            lines.push(format!(
                "{}: no copy was found on PATH or in the usual folders, so none is recognised \
                 under another name",
                clean(program.as_bytes())
            ));
        }
    }
    let before = story.start.credentials.iter().flat_map(|watch| &watch.gaps);
    let end = story.end.as_ref().and_then(|end| end.credentials.as_ref());
    for gap in before.chain(end.iter().flat_map(|events| &events.gaps)) {
        lines.push(clean(format!("credentials, {}: {}", gap.source, gap.why).as_bytes()));
    }
    for sensor in &story.start.sensors {
        let name = &sensor.sensor;
        lines.extend(
            sensor
                .missing
                .iter()
                .map(|why| clean(format!("{name} could not be attached: {why}").as_bytes())),
        );
        if !sensor.tax.is_empty() {
            let line = format!("{name} was not free ({}): {}", sensor.hook, sensor.tax);
            lines.push(clean(line.as_bytes()));
        }
    }
    if let Some(CommandCgroup::Shared { path, others, .. }) = &story.start.cgroup {
        lines.push(format!(
            "cgroup {}: programs on sockets were attached to it, and {others} processes that were not joined \
             are in it too: each packet and new socket of theirs was looked at and left alone",
            clean(&path.0)
        ));
    }
    let partial = story.whole.as_ref().map_or_else(
        || story.execs_in_order().filter(|exec| !exec.unread.is_empty()).count(),
        |whole| whole.partial_execs,
    );
    if partial > 0 {
        lines.push(format!("{partial} execs have fields the kernel could not read"));
    }
    lines
}

/// A Unix time as a date, in UTC.
pub(super) fn date(unix_ns: i64) -> String {
    let seconds = unix_ns.div_euclid(1_000_000_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// The same as RFC 3339 has it.
pub(crate) fn rfc3339(unix_ns: i64) -> String {
    date(unix_ns).replacen(' ', "T", 1).replace(" UTC", "Z")
}

/// Days since 1970-01-01 as year, month and day of the Gregorian calendar. Counts in years that
/// begin in March, so that the leap day is the last.
fn civil(days: i64) -> (i64, i64, i64) {
    const DAYS_400_YEARS: i64 = 146_097;
    const FROM_0000_03_01: i64 = 719_468;
    let days = days + FROM_0000_03_01;
    let (era, day) = (days.div_euclid(DAYS_400_YEARS), days.rem_euclid(DAYS_400_YEARS));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

/// With three digits, in the unit that fits.
pub(crate) fn duration(ns: u64) -> String {
    let ns_f = ns as f64;
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (ns_f / 1e3, "us"),
        1_000_000..1_000_000_000 => (ns_f / 1e6, "ms"),
        _ => (ns_f / 1e9, "s"),
    };
    let digits = if value < 10.0 {
        2
    } else if value < 100.0 {
        1
    } else {
        0
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::{date, duration};

    #[test]
    fn durations_have_three_digits() {
        let check = |ns, expected: &str| assert_eq!(duration(ns), expected);
        check(7, "7 ns");
        check(1_500, "1.50 us");
        check(12_345_678, "12.3 ms");
        check(999_000_000, "999 ms");
        check(61_000_000_000, "61.0 s");
    }

    #[test]
    fn dates_are_of_the_gregorian_calendar() {
        let check = |seconds: i64, expected: &str| {
            assert_eq!(date(seconds * 1_000_000_000), expected);
        };
        check(0, "1970-01-01 00:00:00 UTC");
        check(951_827_696, "2000-02-29 12:34:56 UTC");
        check(1_709_251_199, "2024-02-29 23:59:59 UTC");
        check(4_107_542_400, "2100-03-01 00:00:00 UTC");
        check(-1, "1969-12-31 23:59:59 UTC");
    }
}
