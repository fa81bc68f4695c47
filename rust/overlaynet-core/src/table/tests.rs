use core::net::{Ipv4Addr, Ipv6Addr};
use proptest::prelude::*;
use std::vec::Vec;

use super::{Lookup, NO_SLOT, PrefixTable, list::ListTable};
use crate::address::{Address, Bits, Packed};
use crate::prefix::{Ipv4Prefix, Ipv6Prefix, Prefix};

#[derive(Clone, Debug)]
enum Step<P: Prefix> {
    Insert(P),
    Remove(P),
    Extend(Vec<P>),
    Clear,
}

/// Prefixes that nest, lie one bit apart, share long beginnings or none, and reach from /0 to a single address.
fn ipv4_prefixes() -> impl Strategy<Value = Ipv4Prefix> {
    let nested = (0u32..4, 0u32..4, 0u8..=32).prop_map(|(high, low, len)| (high << 30 | low << 8 | low, len));
    let chain = (0u8..=32).prop_map(|len| (0xffff_ffff, len));
    let one_bit_apart = (0u32..32, 24u8..=32).prop_map(|(bit, len)| (0x0a01_0000 ^ 1 << bit, len));
    let close = (0u32..2048, 20u8..=32).prop_map(|(low, len)| (0x0a01_0000 | low, len));
    let any = (any::<u32>(), 0u8..=32);
    prop_oneof![nested, chain, one_bit_apart, close, any]
        .prop_map(|(bits, len)| Ipv4Prefix::new_truncated(Ipv4Addr::from_bits(bits), len).unwrap())
}

fn ipv6_prefixes() -> impl Strategy<Value = Ipv6Prefix> {
    let nested =
        (0u128..4, 0u128..4, 0u8..=128).prop_map(|(high, low, len)| (high << 126 | low << 63 | low, len));
    let chain = (0u8..=128).prop_map(|len| (u128::MAX, len));
    let one_bit_apart = (0u32..128, 120u8..=128).prop_map(|(bit, len)| (0xfd00_u128 << 112 ^ 1 << bit, len));
    let close = (0u128..2048, 48u8..=64).prop_map(|(low, len)| (0xfd00_u128 << 112 | low << 64, len));
    let any = (any::<u128>(), 0u8..=128);
    prop_oneof![nested, chain, one_bit_apart, close, any]
        .prop_map(|(bits, len)| Ipv6Prefix::new_truncated(Ipv6Addr::from_bits(bits), len).unwrap())
}

fn steps<P: Prefix + 'static>(
    prefixes: impl Strategy<Value = P> + Clone,
) -> impl Strategy<Value = Vec<Step<P>>> {
    let many = proptest::collection::vec(prefixes.clone(), 0..40);
    let step = prop_oneof![
        40 => prefixes.clone().prop_map(Step::Insert),
        20 => prefixes.prop_map(Step::Remove),
        2 => many.prop_map(Step::Extend),
        1 => Just(Step::Clear),
    ];
    proptest::collection::vec(step, 0..80)
}

/// Everything that can be asked about `probe`, of both.
fn agree_about<P: Prefix>(
    table: &PrefixTable<P, usize>,
    list: &ListTable<P, usize>,
    probe: P,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(table.get(&probe), list.get(&probe));
    for address in [probe.address(), probe.last_address()] {
        let found = list.lookup(address);
        prop_assert_eq!(table.lookup(address), found);
        let slot = table.as_lookup().find(address.bits());
        prop_assert_eq!(table.entry(slot), found);
    }
    prop_assert!(
        table.covering(probe).eq(list.covering(probe)),
        "covering {}",
        probe
    );
    prop_assert!(table.covered(probe).eq(list.covered(probe)), "covered {}", probe);
    let backwards: Vec<_> = table.covered(probe).rev().collect();
    prop_assert!(
        backwards.into_iter().rev().eq(list.covered(probe)),
        "covered {}, backwards",
        probe
    );
    prop_assert_eq!(table.overlaps(probe), list.overlaps(probe));
    Ok(())
}

fn agree_as_a_whole<P: Prefix>(
    table: &PrefixTable<P, usize>,
    list: &ListTable<P, usize>,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(table.len(), list.len());
    prop_assert!(table.iter().eq(list.iter()));
    prop_assert_eq!(table.iter().len(), list.len());
    let (mut from_both_ends, mut behind, mut entries) = (Vec::new(), Vec::new(), table.iter());
    while let Some(entry) = entries.next() {
        from_both_ends.push(entry);
        behind.extend(entries.next_back());
    }
    prop_assert_eq!(entries.next_back(), None);
    from_both_ends.extend(behind.into_iter().rev());
    prop_assert!(from_both_ends.into_iter().eq(list.iter()), "from both ends");
    Ok(())
}

fn agree<P: Prefix>(steps: Vec<Step<P>>, probes: Vec<P>) -> Result<(), TestCaseError> {
    let mut table = PrefixTable::new();
    let mut list = ListTable::new();
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Insert(prefix) => {
                prop_assert_eq!(table.insert(prefix, number), list.insert(prefix, number));
                agree_about(&table, &list, prefix)?;
            }
            Step::Remove(prefix) => {
                prop_assert_eq!(table.remove(&prefix), list.remove(&prefix));
                agree_about(&table, &list, prefix)?;
            }
            Step::Extend(prefixes) => {
                let entries = || {
                    prefixes
                        .iter()
                        .enumerate()
                        .map(|(at, prefix)| (*prefix, number + at))
                };
                table.extend(entries());
                list.extend(entries());
            }
            Step::Clear => {
                table.clear();
                list.clear();
            }
        }
        prop_assert_eq!(table.len(), list.len());
    }
    agree_as_a_whole(&table, &list)?;
    agree_as_a_whole(&table.clone(), &list)?;
    let built: PrefixTable<P, usize> = list.iter().map(|(prefix, &value)| (prefix, value)).collect();
    agree_as_a_whole(&built, &list)?;
    for probe in probes {
        agree_about(&table, &list, probe)?;
        agree_about(&built, &list, probe)?;
    }
    Ok(())
}

proptest! {
    #[test]
    fn ipv4_table_agrees_with_the_list(
        steps in steps(ipv4_prefixes().boxed()), probes in proptest::collection::vec(ipv4_prefixes(), 20)
    ) {
        agree(steps, probes)?;
    }

    #[test]
    fn ipv6_table_agrees_with_the_list(
        steps in steps(ipv6_prefixes().boxed()), probes in proptest::collection::vec(ipv6_prefixes(), 20)
    ) {
        agree(steps, probes)?;
    }
}

/// Numbers that look random, the same ones each time (Marsaglia's xorshift64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Keeps some 3,000 prefixes in motion for 100,000 operations; now and then nearly all go.
fn churn<P: Prefix>(prefix: impl Fn(u64, u64) -> P) {
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    let mut table = PrefixTable::new();
    let mut mirror = std::collections::BTreeMap::new();
    let mut most_words = 0;
    for step in 0..100_000_usize {
        let prefix = prefix(numbers.next(), numbers.next());
        if numbers.next() % 5 < 3 {
            assert_eq!(table.insert(prefix, step), mirror.insert(prefix, step));
        } else {
            let gone = mirror
                .range(prefix..)
                .next()
                .map(|(prefix, _)| *prefix)
                .unwrap_or(prefix);
            assert_eq!(table.remove(&gone), mirror.remove(&gone));
        }
        if step % 20_000 == 19_999 {
            while mirror.len() > 10 {
                let (gone, value) = mirror.pop_first().unwrap();
                assert_eq!(table.remove(&gone), Some(value));
            }
        }
        assert_eq!(table.len(), mirror.len());
        if step % 1000 == 0 {
            assert!(
                table
                    .iter()
                    .map(|(prefix, value)| (prefix, *value))
                    .eq(mirror.clone())
            );
            for _ in 0..8 {
                let near = mirror
                    .keys()
                    .nth(numbers.next() as usize % (mirror.len() + 1))
                    .unwrap_or(&prefix);
                let address = [near.address(), near.last_address()][numbers.next() as usize % 2];
                let holding = mirror.iter().filter(|(prefix, _)| prefix.contains(address));
                let longest = holding.max_by_key(|(prefix, _)| prefix.len());
                assert_eq!(
                    table.lookup(address),
                    longest.map(|(prefix, value)| (*prefix, value))
                );
            }
        }
        let (free, all) = table.blocks.free_and_all();
        most_words = most_words.max(all);
        assert!(free <= all);
    }
    // However long it goes on, the memory that it takes does not grow.
    assert!(most_words < 400_000, "{most_words} words");
}

#[test]
fn an_ipv4_table_survives_churn() {
    churn(|bits, len| {
        let bits = (bits as u32) & [0x0a03_ffff, 0xffff_ffff, 0x0a00_ff00][len as usize % 3];
        let len = [24, 24, 32, 16, 22, 27, 8, 24, (len >> 8) as u8 % 33][(len >> 16) as usize % 9];
        Ipv4Prefix::new_truncated(Ipv4Addr::from_bits(bits), len).unwrap()
    });
}

#[test]
fn an_ipv6_table_survives_churn() {
    churn(|bits, len| {
        let high = 0x2001_0db8_0000_0000 | bits & 0xf_ffff_ffff & [u64::MAX, 0xff_0000][len as usize % 2];
        let any_len = (len >> 8) as u8 % 129;
        let len = [48, 64, 64, 44, 40, 56, 60, any_len][(len >> 16) as usize % 8];
        // A short prefix concerns all nodes below it, so it comes more rarely.
        let len = if len < 40 && bits >> 58 != 0 { 64 } else { len };
        Ipv6Prefix::new_truncated(Ipv6Addr::from_bits(u128::from(high) << 64), len).unwrap()
    });
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

#[test]
fn a_slot_stays_the_same_while_other_prefixes_come_and_go() {
    let mut table = PrefixTable::new();
    let prefix: Ipv4Prefix = "10.1.2.0/24".parse().unwrap();
    table.insert(prefix, 0_u32);
    let slot = table.slot(&prefix).unwrap();
    for (number, other) in ["0.0.0.0/0", "10.0.0.0/8", "192.168.0.0/16", "10.1.2.3/32"]
        .iter()
        .enumerate()
    {
        table.insert(other.parse().unwrap(), number as u32);
    }
    table.extend((0..1000).map(|number| (Ipv4Prefix::host(Ipv4Addr::from_bits(number)), number)));
    table.remove(&"0.0.0.0/0".parse().unwrap());
    table.insert(prefix, 7);
    assert_eq!(table.slot(&prefix), Some(slot));
    assert_eq!(table.entry(slot), Some((prefix, &7)));
    assert_eq!(table.lookup_slot([10, 1, 2, 4]), Some(slot));
    assert_ne!(table.lookup_slot(0x0a01_0203_u32), Some(slot));
}

#[test]
fn a_batch_finds_what_one_by_one_finds() {
    let table: PrefixTable<Ipv4Prefix, ()> = (0..600_u32)
        .map(|number| {
            (
                Ipv4Prefix::new_truncated(Ipv4Addr::from_bits(number << 7), 25).unwrap(),
                (),
            )
        })
        .collect();
    let addresses: Vec<u32> = (0..80_000).step_by(31).collect();
    let mut slots = std::vec![0; addresses.len()];
    table.lookup_slots(&addresses, &mut slots);
    let one_by_one: Vec<u32> = addresses
        .iter()
        .map(|&address| table.lookup_slot(address).unwrap_or(NO_SLOT))
        .collect();
    assert_eq!(slots, one_by_one);
    let bytes: Vec<[u8; 4]> = addresses.iter().map(|address| address.to_be_bytes()).collect();
    table.lookup_slots(&bytes, &mut slots);
    assert_eq!(slots, one_by_one);
}

#[test]
fn addresses_that_go_down_together_find_what_each_finds_alone() {
    let mut numbers = Numbers(0x0f0f_1234_5678_9abc);
    let mut table: PrefixTable<Ipv6Prefix, ()> = (0..20_000)
        .map(|_| {
            let bits = 0x2a00_u128 << 112
                | u128::from(numbers.next() % 512) << 96
                | u128::from(numbers.next()) << 32;
            let len = [32, 40, 44, 48, 64, 128][numbers.next() as usize % 6];
            (Ipv6Prefix::truncated(Ipv6Addr::from_bits(bits), len), ())
        })
        .collect();
    assert!(table.as_lookup().bytes() > 2 * super::lookup::STAGED_FROM_BYTES);
    let prefixes: Vec<Ipv6Prefix> = table.iter().map(|(prefix, ())| prefix).collect();
    let addresses: Vec<[u8; 16]> = (0..300)
        .map(|at| match at % 3 {
            // Some lie outside of all.
            0 => (u128::from(numbers.next()) << 64).to_be_bytes(),
            _ => {
                let prefix = prefixes[numbers.next() as usize % prefixes.len()];
                (prefix.address().to_bits() | u128::from(numbers.next())).to_be_bytes()
            }
        })
        .collect();
    for _ in 0..2 {
        for count in (0..70).chain([300]) {
            let mut slots = std::vec![7; count + 1];
            table.lookup_slots(&addresses[..count], &mut slots);
            let alone = addresses[..count]
                .iter()
                .map(|&address| table.as_lookup().slot(address));
            assert!(alone.eq(slots[..count].iter().copied()), "{count} together");
            assert_eq!(slots[count], 7);
        }
        table.insert(Ipv6Prefix::ALL, ());
    }
}

#[test]
fn entries_in_order_are_told_their_slots() {
    let prefix = |text: &str| -> Ipv4Prefix { text.parse().unwrap() };
    let mut table: PrefixTable<Ipv4Prefix, u32> = (0..64)
        .map(|at| (Ipv4Prefix::truncated(Ipv4Addr::from_bits(at << 24), 8), at))
        .collect();
    for texts in [
        &["4.0.0.0/8", "9.1.0.0/16"][..],
        &["5.0.0.0/8", "5.0.0.0/8", "9.1.0.0/16", "9.2.0.0/16", "9.2.0.0/24"],
    ] {
        let entries: Vec<(Ipv4Prefix, u32)> = texts
            .iter()
            .zip(100..)
            .map(|(text, value)| (prefix(text), value))
            .collect();
        let mut slots = Vec::new();
        table.extend_in_order(entries.clone(), |slot| slots.push(slot));
        let told: Vec<Option<u32>> = slots.into_iter().map(Some).collect();
        let found: Vec<Option<u32>> = entries.iter().map(|(prefix, _)| table.slot(prefix)).collect();
        assert_eq!(told, found);
        assert_eq!(
            table.get(&entries[texts.len() - 1].0),
            Some(&(99 + texts.len() as u32))
        );
    }
    assert_eq!((table.len(), table.get(&prefix("5.0.0.0/8"))), (67, Some(&101)));
}

#[test]
#[should_panic(expected = "in the order of their prefixes")]
fn entries_that_are_not_in_order_are_refused() {
    let entries = ["10.1.0.0/16", "10.0.0.0/8"].map(|text| (text.parse::<Ipv4Prefix>().unwrap(), ()));
    PrefixTable::new().extend_in_order(entries, |_| ());
}

/// What a lookup that began earlier reads: the memory as it was shared then.
fn read<P: Prefix>(lookup: &Lookup<P>, address: impl Packed<P::Address>) -> Option<u32> {
    Some(lookup.slot(address)).filter(|&slot| slot != NO_SLOT)
}

#[test]
fn what_was_taken_out_of_use_waits_until_readers_have_left() {
    let mut table = PrefixTable::new();
    let prefix: Ipv4Prefix = "10.1.2.0/24".parse().unwrap();
    table.insert("10.0.0.0/8".parse().unwrap(), ());
    table.insert(prefix, ());
    let lookup = table.share();
    let slot = read(&lookup, [10, 1, 2, 3]).unwrap();
    table.remove(&prefix);
    let mark = table.retired();
    assert_ne!(mark, 0);
    table.insert("10.1.3.0/24".parse().unwrap(), ());
    assert_ne!(
        table.slot(&"10.1.3.0/24".parse().unwrap()),
        Some(slot),
        "still reserved"
    );
    table.reclaim(mark);
    assert_eq!(table.next_slot(), slot);
}

#[test]
fn an_empty_shared_table_that_is_cleared_keeps_the_slots_that_wait() {
    let mut table = PrefixTable::new();
    let prefix: Ipv4Prefix = "10.1.2.0/24".parse().unwrap();
    table.insert(prefix, 1);
    table.share();
    table.remove(&prefix);
    table.clear();
    table.reclaim(table.retired());
    table.insert(prefix, 2);
    assert_eq!(table.lookup(prefix.address()), Some((prefix, &2)));
}

#[test]
fn a_table_of_one_overlay_is_a_single_access_and_small() {
    let table: PrefixTable<Ipv4Prefix, u32> = (0..10_000_u32)
        .map(|number| {
            (
                Ipv4Prefix::new(Ipv4Addr::from_bits(0x0a00_0000 | number << 8), 24).unwrap(),
                number,
            )
        })
        .collect();
    assert_eq!(table.as_lookup().shape().depth, 24, "the root resolves all");
    assert!(
        table.as_lookup().bytes() < 100_000,
        "{}",
        table.as_lookup().bytes()
    );
    let small: PrefixTable<Ipv4Prefix, u32> = [("10.1.0.0/24".parse().unwrap(), 1)].into_iter().collect();
    assert!(small.bytes() < 1000, "{}", small.bytes());
    assert_eq!(u32::mask(small.as_lookup().shape().skip), 0xffff_ff00);
}

/// 20,000 prefixes of the IPv4 Internet's lengths, neighbours of each other in part.
fn internet() -> PrefixTable<Ipv4Prefix, u32> {
    let mut numbers = Numbers(0x0123_4567_89ab_cdef);
    let mut bits = 0_u32;
    (0..20_000)
        .map(|value| {
            let len = [24, 24, 24, 24, 24, 24, 23, 22, 20, 16][numbers.next() as usize % 10];
            bits = match numbers.next() % 3 {
                0 => numbers.next() as u32 % 0x0400_0000,
                _ => bits.wrapping_add(1 << (32 - len)),
            };
            (Ipv4Prefix::truncated(Ipv4Addr::from_bits(bits), len as u8), value)
        })
        .collect()
}

/// Counts that hold on every machine; times are the bench's.
#[test]
fn a_change_of_one_prefix_takes_no_more_than_one_node_out_of_use() {
    let mut table = internet();
    let _lookup = table.share();
    let prefixes: Vec<Ipv4Prefix> = table
        .iter()
        .map(|(prefix, _)| prefix)
        .filter(|prefix| prefix.len() == 24)
        .collect();
    for prefix in prefixes.iter().step_by(7) {
        let before = table.retired();
        let value = table.remove(prefix).unwrap();
        assert!(table.retired() - before <= 2, "the slot, and a node at most");
        table.insert(*prefix, value);
        assert!(table.retired() - before <= 3, "and a node at most");
        table.reclaim(table.retired());
    }
}

#[test]
fn a_prefix_of_the_internet_costs_the_lookups_few_bytes() {
    let table = internet();
    let lookup = table.as_lookup();
    let (root, all) = (4 << lookup.shape().root_bits(), lookup.bytes());
    let each = (all - root) / table.len();
    assert!(each <= 4, "{each} bytes a prefix beside the root's {root}");
    // Room for each of the 20,000, of which some are equal.
    let entries = table.bytes() - all;
    assert!(entries <= 20_000 * 16 + 2_000, "{entries} bytes of entries");
}

#[test]
fn a_full_node_far_behind_what_covers_it_is_small_all_the_same() {
    let prefix = |bits, len| Ipv4Prefix::new_truncated(Ipv4Addr::from_bits(bits), len).unwrap();
    let table: PrefixTable<Ipv4Prefix, ()> = [(0x0a00_0000, 8)]
        .into_iter()
        .chain((0..60).map(|at| (0x0a00_0000 + (at << 8), 24)))
        .chain((0..200).map(|at| (0x0a01_0000 + (at << 8), 24)))
        .map(|(bits, len)| (prefix(bits, len), ()))
        .collect();
    let lookup = table.as_lookup();
    let nodes = lookup.bytes() - (4 << lookup.shape().root_bits());
    assert!(nodes < 800, "{nodes} bytes");
}
