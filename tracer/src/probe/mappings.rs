//! The rings' mappings, which are no children's business.

use std::{ffi::c_void, fs};

use rustix::mm::{Advice, madvise};

/// Keeps children from getting copies of the mappings of eBPF maps. A fork would copy an entry of the
/// page table for each of their pages, twice because a ring is mapped twice in a row, and the exec
/// after it would throw them away again, while the command waits. Of a mapping that is not found the
/// children get a copy, which harms nobody.
pub(super) fn keep_from_children() {
    let mappings = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let of_maps = mappings.lines().filter(|line| line.ends_with("anon_inode:bpf-map"));
    for (begin, end) in of_maps.filter_map(range) {
        let address = std::ptr::without_provenance_mut::<c_void>(begin);
        // SAFETY: the advice changes nothing for this process, whatever is mapped there.
        let _ = unsafe { madvise(address, end.saturating_sub(begin), Advice::LinuxDontFork) };
    }
}

/// Where a line of that file says that its mapping begins and ends.
fn range(line: &str) -> Option<(usize, usize)> {
    let (begin, end) = line.split_once(' ')?.0.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    Some((number(begin)?, number(end)?))
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn lines_of_the_file() {
        let line = "7f6eb18ba000-7f6eb38bb000 r--s 00001000 00:0e 1041   anon_inode:bpf-map";
        assert_eq!(range(line), Some((0x7f6e_b18b_a000, 0x7f6e_b38b_b000)));
        assert_eq!(range("7f6eb18ba000 r--s"), None);
        assert_eq!(range("x-y r--s"), None);
    }
}
