use core::net::{Ipv4Addr, Ipv6Addr};
use proptest::prelude::*;
use std::vec::Vec;

use super::{PrefixTable, list::ListTable};
use crate::prefix::{Ipv4Prefix, Ipv6Prefix, Prefix};

#[derive(Clone, Debug)]
enum Step<P: Prefix> {
    Insert(P),
    Remove(P),
}

/// Prefixes that often nest: few distinct bits at the top and the bottom of the address.
fn ipv4_prefixes() -> impl Strategy<Value = Ipv4Prefix> {
    (0u32..4, 0u32..4, 0u8..=32).prop_map(|(high, low, len)| {
        Ipv4Prefix::new_truncated(Ipv4Addr::from_bits(high << 30 | low << 8 | low), len).unwrap()
    })
}

fn ipv6_prefixes() -> impl Strategy<Value = Ipv6Prefix> {
    (0u128..4, 0u128..4, 0u8..=128).prop_map(|(high, low, len)| {
        Ipv6Prefix::new_truncated(Ipv6Addr::from_bits(high << 126 | low << 63 | low), len).unwrap()
    })
}

fn steps<P: Prefix>(prefixes: impl Strategy<Value = P>) -> impl Strategy<Value = Vec<Step<P>>> {
    let step = (prefixes, 0..3).prop_map(|(prefix, kind)| {
        if kind == 0 {
            Step::Remove(prefix)
        } else {
            Step::Insert(prefix)
        }
    });
    proptest::collection::vec(step, 0..60)
}

fn agree<P: Prefix>(steps: Vec<Step<P>>, probes: Vec<P>) -> Result<(), TestCaseError> {
    let mut table = PrefixTable::new();
    let mut list = ListTable::new();
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Insert(prefix) => {
                prop_assert_eq!(table.insert(prefix, number), list.insert(prefix, number))
            }
            Step::Remove(prefix) => prop_assert_eq!(table.remove(&prefix), list.remove(&prefix)),
        }
        prop_assert_eq!(table.len(), list.len());
    }
    prop_assert!(table.iter().eq(list.iter()));
    for probe in probes {
        prop_assert_eq!(table.get(&probe), list.get(&probe));
        prop_assert_eq!(table.lookup(probe.address()), list.lookup(probe.address()));
        prop_assert_eq!(
            table.lookup(probe.last_address()),
            list.lookup(probe.last_address())
        );
        prop_assert!(table.covering(probe).eq(list.covering(probe)));
        prop_assert!(table.covered(probe).eq(list.covered(probe)), "covered {}", probe);
        prop_assert_eq!(table.overlaps(probe), list.overlaps(probe));
    }
    Ok(())
}

proptest! {
    #[test]
    fn ipv4_table_agrees_with_the_list(
        steps in steps(ipv4_prefixes()), probes in proptest::collection::vec(ipv4_prefixes(), 20)
    ) {
        agree(steps, probes)?;
    }

    #[test]
    fn ipv6_table_agrees_with_the_list(
        steps in steps(ipv6_prefixes()), probes in proptest::collection::vec(ipv6_prefixes(), 20)
    ) {
        agree(steps, probes)?;
    }
}

#[test]
fn the_longest_prefix_wins_and_comes_back_with_its_value() {
    let table: PrefixTable<Ipv4Prefix, &str> = [
        ("0.0.0.0/0", "all"),
        ("10.0.0.0/8", "ten"),
        ("10.1.0.0/16", "one"),
    ]
    .into_iter()
    .map(|(prefix, value)| (prefix.parse().unwrap(), value))
    .collect();
    let found = |a, b| {
        table
            .lookup(Ipv4Addr::new(a, b, 0, 1))
            .map(|(prefix, value)| (prefix.len(), *value))
    };
    assert_eq!(found(10, 1), Some((16, "one")));
    assert_eq!(found(10, 2), Some((8, "ten")));
    assert_eq!(found(11, 1), Some((0, "all")));
}
