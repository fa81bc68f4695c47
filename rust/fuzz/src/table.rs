//! Any insertions, removals and bulk changes leave the table with the list's answers, in both families.
use overlaynet_core::address::{Address, Packed};
use overlaynet_core::prefix::{Ipv4Prefix, Ipv6Prefix, Prefix};
use overlaynet_core::table::{NO_SLOT, PrefixTable, list::ListTable};

/// Panics where that does not hold.
pub fn check(bytes: &[u8]) {
    changes(bytes, |address, len| {
        Ipv4Prefix::truncated(<[u8; 4]>::into(address), len % 33)
    });
    changes(bytes, |address, len| {
        // The same few bits at three places, so that prefixes share short and long beginnings.
        let word = u32::from_be_bytes(address);
        let bits = u128::from(word) << 96 | u128::from(word & 0xff) << 64 | u128::from(word & 3);
        Ipv6Prefix::truncated(bits.into(), len % 129)
    });
}

fn changes<P: Prefix>(bytes: &[u8], prefix: impl Fn([u8; 4], u8) -> P) {
    let (mut table, mut list) = (PrefixTable::new(), ListTable::new());
    // A shared table, which uses nothing again until it is told to, must answer the same.
    let mut shared = PrefixTable::new();
    shared.share();
    for step in bytes.chunks_exact(6).take(100) {
        let prefix = prefix([step[0], step[1], step[2], step[3]], step[4]);
        match step[5] % 8 {
            0 | 1 => {
                let gone = list.remove(&prefix);
                assert_eq!(table.remove(&prefix), gone);
                assert_eq!(shared.remove(&prefix), gone);
            }
            2 => {
                // Some longer prefixes that hold the address.
                let lengths = (prefix.len()..=P::BITS).step_by(7).take(4);
                let many = || {
                    lengths
                        .clone()
                        .map(|len| (P::truncated(prefix.address(), len), len))
                };
                table.extend(many());
                shared.extend(many());
                list.extend(many());
            }
            3 if step[4] > 250 => {
                table.clear();
                shared.clear();
                list.clear();
            }
            4 => shared.reclaim(shared.retired()),
            _ => {
                let before = list.insert(prefix, step[5]);
                assert_eq!(table.insert(prefix, step[5]), before);
                assert_eq!(shared.insert(prefix, step[5]), before);
            }
        }
        for table in [&table, &shared] {
            for address in [prefix.address(), prefix.last_address()] {
                assert_eq!(table.lookup(address), list.lookup(address));
                let mut slots = [0];
                table.lookup_slots(&[Around(address)], &mut slots);
                let found = Some(slots[0]).filter(|&slot| slot != NO_SLOT);
                assert_eq!(found.and_then(|slot| table.entry(slot)), list.lookup(address));
            }
            assert_eq!(table.get(&prefix), list.get(&prefix));
            assert_eq!(table.overlaps(prefix), list.overlaps(prefix));
            assert!(table.covering(prefix).eq(list.covering(prefix)));
            assert!(table.covered(prefix).eq(list.covered(prefix)));
        }
    }
    assert!(table.iter().eq(list.iter()));
    let backwards: Vec<(P, &u8)> = shared.iter().rev().collect();
    assert!(backwards.into_iter().rev().eq(list.iter()));
    let built: PrefixTable<P, u8> = list.iter().map(|(prefix, &value)| (prefix, value)).collect();
    assert!(built.iter().eq(list.iter()));
}

/// An address of any family, for the batch form.
#[derive(Clone, Copy)]
struct Around<A>(A);

impl<A: Address> Packed<A> for Around<A> {
    fn bits(self) -> A::Bits {
        self.0.bits()
    }
}
