//! The time, as the kernel side has it.

use std::{io, sync::OnceLock};

fn clock_ns(clock: libc::clockid_t) -> io::Result<i64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the timespec is writable.
    match unsafe { libc::clock_gettime(clock, &raw mut time) } {
        0 => Ok(time.tv_sec * 1_000_000_000 + time.tv_nsec),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `CLOCK_BOOTTIME` as the kernel side has it: in a time namespace, this process is told another one.
pub(super) fn boottime_ns() -> io::Result<u64> {
    static OFFSET_NS: OnceLock<i64> = OnceLock::new();
    let offset = OFFSET_NS.get_or_init(|| {
        // No such file: no such namespaces.
        let text = std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
        boottime_offset_ns(&text).unwrap_or(0)
    });
    clock_ns(libc::CLOCK_BOOTTIME).map(|told| told.saturating_sub(*offset).unsigned_abs())
}

/// Unix time minus that.
pub(super) fn wall_offset_ns() -> io::Result<i64> {
    Ok(clock_ns(libc::CLOCK_REALTIME)?.saturating_sub_unsigned(boottime_ns()?))
}

/// Of time_namespaces(7): a line is a clock, seconds and nanoseconds.
fn boottime_offset_ns(text: &str) -> Option<i64> {
    let line = text.lines().find_map(|line| line.strip_prefix("boottime"))?;
    let mut numbers = line.split_whitespace().map(str::parse::<i64>);
    let (seconds, nanoseconds) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::boottime_offset_ns;

    #[test]
    fn offsets_of_time_namespaces() {
        let text = "monotonic           0         0\nboottime      -1000         7\n";
        assert_eq!(boottime_offset_ns(text), Some(-999_999_999_993));
        assert_eq!(boottime_offset_ns(""), None);
    }
}
