//! Huge pages for large tables.
//!
//! A lookup in a large table reads lines far from one another. On pages of 4 KiB nearly every one of them also needs a walk of the page
//! tables, on a virtual machine through two of them; on pages of 2 MiB nearly none does. Distributions let programs ask for these
//! (`/sys/kernel/mm/transparent_hugepage/enabled`: `madvise`), and the allocator does not.
use std::ops::Range;

use overlaynet_core::prefix::Prefix;
use overlaynet_core::table::PrefixTable;

/// The length of a huge page, and what it is aligned to, on every processor with base pages of 4 KiB.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Since Linux 6.1; not in every C library's headers.
const MADV_COLLAPSE: libc::c_int = 25;

/// Asks the system to keep what `table` lives in on huge pages, and to move there what is in memory already. Takes as long as copying
/// the table. A small table, or a system that has none to give or does not know the request, is left as it is.
pub fn advise_table<P: Prefix, T>(table: &PrefixTable<P, T>) {
    table.memory().into_iter().for_each(advise);
}

/// The same for the whole huge pages that lie in `memory`.
pub fn advise(memory: Range<*const u8>) {
    let start = memory.start.addr().next_multiple_of(HUGE_PAGE_BYTES);
    let end = memory.end.addr() / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    if start >= end {
        return;
    }
    let first = memory.start.with_addr(start).cast_mut().cast();
    // What is refused is only slower.
    for advice in [libc::MADV_HUGEPAGE, MADV_COLLAPSE] {
        // SAFETY: neither advice changes what any memory holds or who may access it, wherever `memory` is.
        unsafe { libc::madvise(first, end - start, advice) };
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    /// How much of this process lies on huge pages, in KiB.
    fn huge_kib() -> u64 {
        let said = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let line = said.lines().find_map(|line| line.strip_prefix("AnonHugePages:"));
        line.unwrap().trim_end_matches("kB").trim().parse().unwrap()
    }

    #[test]
    fn memory_keeps_its_content_on_huge_pages() {
        let words: Vec<u64> = (0..1 << 20).collect();
        let before = huge_kib();
        let range = words.as_ptr_range();
        advise(range.start.cast()..range.end.cast());
        let enabled =
            std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
        if enabled.contains("[madvise]") || enabled.contains("[always]") {
            assert!(
                huge_kib() >= before + 2048,
                "8 MiB hold three huge pages at least"
            );
        }
        assert!((0..).zip(&words).all(|(at, &word)| at == word));
    }

    #[test]
    fn a_range_without_a_whole_huge_page_is_left_alone() {
        let byte = 0_u8;
        advise(&raw const byte..&raw const byte);
    }
}
