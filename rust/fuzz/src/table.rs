//! Any insertions and removals leave the table with the list's answers.
use overlaynet_core::prefix::Ipv4Prefix;
use overlaynet_core::table::{PrefixTable, list::ListTable};

/// Panics where that does not hold.
pub fn check(bytes: &[u8]) {
    let (mut table, mut list) = (PrefixTable::new(), ListTable::new());
    for step in bytes.chunks_exact(6).take(200) {
        let address = [step[0], step[1], step[2], step[3]].into();
        let Ok(prefix) = Ipv4Prefix::new_truncated(address, step[4] % 33) else {
            continue;
        };
        if step[5] % 4 == 0 {
            assert_eq!(table.remove(&prefix), list.remove(&prefix));
        } else {
            assert_eq!(table.insert(prefix, step[5]), list.insert(prefix, step[5]));
        }
        assert_eq!(table.lookup(address), list.lookup(address));
        assert_eq!(table.overlaps(prefix), list.overlaps(prefix));
        assert!(table.covering(prefix).eq(list.covering(prefix)));
        assert!(table.covered(prefix).eq(list.covered(prefix)));
    }
    assert!(table.iter().eq(list.iter()));
}
