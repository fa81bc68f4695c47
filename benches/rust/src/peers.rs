//! Ours and the peers behind one interface: load, look every address up and add up what is found, and where a crate can, change.
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ip_network_table_deps_treebitmap::IpLookupTable;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use overlaynet_core::prefix::{Ipv4Prefix, Ipv6Prefix};
use overlaynet_core::table::{NO_SLOT, PrefixTable};
use overlaynet_io::live::{LiveTable, Reader};
use overlaynet_io::{cpu, pages};
use poptrie::Poptrie;
use prefix_trie::PrefixMap;
use ts_bart::RoutingTable;

use crate::tables::{Address, Entry};

/// A table of one crate.
pub trait Table<A>: Sized {
    const NAME: &'static str;

    fn load(entries: &[Entry<A>]) -> Self;

    /// The sum of the values that the addresses find.
    fn sum(&self, addresses: &[A]) -> u64;

    fn insert(&mut self, _: Entry<A>) {
        unimplemented!("{} is not changed here", Self::NAME)
    }

    fn remove(&mut self, _: Entry<A>) {
        unimplemented!("{} is not changed here", Self::NAME)
    }
}

/// Our prefix of a bench's entry.
pub trait Family:
    Address + overlaynet_core::address::Packed<<Self::Prefix as overlaynet_core::prefix::Prefix>::Address>
{
    type Prefix: overlaynet_core::prefix::Prefix + Send + Sync;
    type Standard: Copy + Into<IpAddr>;
    fn prefix(self, len: u8) -> Self::Prefix;
    fn standard(self) -> Self::Standard;
}

impl Family for u32 {
    type Prefix = Ipv4Prefix;
    type Standard = Ipv4Addr;
    fn prefix(self, len: u8) -> Ipv4Prefix {
        Ipv4Prefix::new_truncated(self.into(), len).expect("at most 32")
    }
    fn standard(self) -> Ipv4Addr {
        self.into()
    }
}

impl Family for u128 {
    type Prefix = Ipv6Prefix;
    type Standard = Ipv6Addr;
    fn prefix(self, len: u8) -> Ipv6Prefix {
        Ipv6Prefix::new_truncated(self.into(), len).expect("at most 128")
    }
    fn standard(self) -> Ipv6Addr {
        self.into()
    }
}

/// Ours, with values read: slots in batches, then the value of each, which lie by slot.
pub struct Ours<A: Family> {
    pub table: PrefixTable<A::Prefix, ()>,
    values: Vec<u32>,
}

impl<A: Family> Ours<A> {
    fn put(&mut self, slot: u32, value: u32) {
        let at = slot as usize;
        if at >= self.values.len() {
            self.values.resize(at + 1, 0);
        }
        self.values[at] = value;
    }
}

impl<A: Family> Table<A> for Ours<A> {
    const NAME: &'static str = "overlaynet";

    fn load(entries: &[Entry<A>]) -> Self {
        let mut sorted: Vec<_> = entries
            .iter()
            .map(|&(address, len, value)| (address.prefix(len), value))
            .collect();
        if !sorted.is_sorted_by_key(|entry| entry.0) {
            sorted.sort_by_key(|entry| entry.0);
        }
        let mut ours = Self {
            table: PrefixTable::new(),
            values: Vec::with_capacity(entries.len()),
        };
        let mut slots = Vec::with_capacity(entries.len());
        let prefixes = sorted.iter().map(|&(prefix, _)| (prefix, ()));
        ours.table.extend_in_order(prefixes, |slot| slots.push(slot));
        for (slot, (_, value)) in slots.into_iter().zip(sorted) {
            ours.put(slot, value);
        }
        pages::advise_table(&ours.table);
        let values = ours.values.as_ptr_range();
        pages::advise(values.start.cast()..values.end.cast());
        ours
    }

    fn sum(&self, addresses: &[A]) -> u64 {
        let mut slots = [0; 256];
        let mut sum = 0;
        for part in addresses.chunks(slots.len()) {
            cpu::lookup_slots(self.table.as_lookup(), part, &mut slots);
            for &slot in &slots[..part.len()] {
                sum += self
                    .values
                    .get(slot as usize)
                    .map_or(0, |&value| u64::from(value));
            }
        }
        sum
    }

    fn insert(&mut self, (address, len, value): Entry<A>) {
        let slot = self.table.next_slot();
        self.table.insert(address.prefix(len), ());
        self.put(slot, value);
    }

    fn remove(&mut self, (address, len, _): Entry<A>) {
        self.table.remove(&address.prefix(len));
    }
}

impl<A: Family> Ours<A> {
    /// The same with slots alone: what the batch form gives.
    pub fn slots(&self, addresses: &[A]) -> u64 {
        let mut slots = [0; 256];
        let mut sum = 0;
        for part in addresses.chunks(slots.len()) {
            cpu::lookup_slots(self.table.as_lookup(), part, &mut slots);
            sum += slots[..part.len()]
                .iter()
                .filter(|&&slot| slot != NO_SLOT)
                .count() as u64;
        }
        sum
    }

    /// The same one by one, prefix and value.
    pub fn one_by_one(&self, addresses: &[A]) -> u64 {
        let find = |&address: &A| {
            let slot = self.table.lookup_slot(address)?;
            let (prefix, ()) = self.table.entry(slot)?;
            black_box(prefix);
            self.values.get(slot as usize)
        };
        addresses
            .iter()
            .filter_map(find)
            .map(|&value| u64::from(value))
            .sum()
    }
}

/// Ours with readers on other threads.
pub struct Live<A: Family>(pub LiveTable<A::Prefix>, pub Option<Reader<A::Prefix>>);

impl<A: Family> Table<A> for Live<A> {
    const NAME: &'static str = "overlaynet, shared";

    fn load(entries: &[Entry<A>]) -> Self {
        let entries = entries
            .iter()
            .map(|&(address, len, value)| (address.prefix(len), value));
        let mut table: LiveTable<A::Prefix> = entries.collect();
        let reader = table.reader();
        Self(table, Some(reader))
    }

    fn sum(&self, _: &[A]) -> u64 {
        unimplemented!("a reader does that")
    }

    fn insert(&mut self, (address, len, value): Entry<A>) {
        self.0.insert(address.prefix(len), value);
    }

    fn remove(&mut self, (address, len, _): Entry<A>) {
        self.0.remove(&address.prefix(len));
    }
}

pub struct PrefixTrie<A>(PrefixMap<(A, u8), u32>)
where
    (A, u8): prefix_trie::Prefix;

macro_rules! peers {
    ($address:ty, $standard:ty, $net:ident, $iptrie:ty) => {
        impl Table<$address> for PrefixTrie<$address> {
            const NAME: &'static str = "prefix-trie";
            fn load(entries: &[Entry<$address>]) -> Self {
                Self(
                    entries
                        .iter()
                        .map(|&(address, len, value)| ((address, len), value))
                        .collect(),
                )
            }
            fn sum(&self, addresses: &[$address]) -> u64 {
                let find = |&address: &$address| self.0.get_lpm(&(address, <$address>::BITS as u8));
                addresses
                    .iter()
                    .filter_map(find)
                    .map(|(_, &value)| u64::from(value))
                    .sum()
            }
            fn insert(&mut self, (address, len, value): Entry<$address>) {
                self.0.insert((address, len), value);
            }
            fn remove(&mut self, (address, len, _): Entry<$address>) {
                self.0.remove(&(address, len));
            }
        }

        impl Table<$address> for TreeBitmap<$standard> {
            const NAME: &'static str = "treebitmap";
            fn load(entries: &[Entry<$address>]) -> Self {
                let mut table = IpLookupTable::with_capacity(entries.len());
                for &(address, len, value) in entries {
                    table.insert(address.standard(), len.into(), value);
                }
                Self(table)
            }
            fn sum(&self, addresses: &[$address]) -> u64 {
                let find = |address: &$address| self.0.longest_match(address.standard());
                addresses
                    .iter()
                    .filter_map(find)
                    .map(|(_, _, &value)| u64::from(value))
                    .sum()
            }
            fn insert(&mut self, (address, len, value): Entry<$address>) {
                self.0.insert(address.standard(), len.into(), value);
            }
            fn remove(&mut self, (address, len, _): Entry<$address>) {
                self.0.remove(address.standard(), len.into());
            }
        }

        impl Table<$address> for IpTrie<$iptrie> {
            const NAME: &'static str = "iptrie, static";
            fn load(entries: &[Entry<$address>]) -> Self {
                let prefix =
                    |address: $address, len| <$iptrie>::new(address.into(), len).expect("no host bits");
                let entries = entries
                    .iter()
                    .map(|&(address, len, value)| (prefix(address, len), value));
                Self(entries.collect())
            }
            fn sum(&self, addresses: &[$address]) -> u64 {
                let find = |address: &$address| *self.0.lookup(&address.standard()).1;
                addresses.iter().map(find).map(u64::from).sum()
            }
        }

        impl Table<$address> for Pop<$address> {
            const NAME: &'static str = "poptrie";
            fn load(entries: &[Entry<$address>]) -> Self {
                Self(
                    entries
                        .iter()
                        .map(|&(address, len, value)| ((address, len), value))
                        .collect(),
                )
            }
            fn sum(&self, addresses: &[$address]) -> u64 {
                let find = |&address: &$address| self.0.lookup(address);
                addresses
                    .iter()
                    .filter_map(find)
                    .map(|&value| u64::from(value))
                    .sum()
            }
            fn insert(&mut self, (address, len, value): Entry<$address>) {
                self.0.insert((address, len), value);
            }
            fn remove(&mut self, (address, len, _): Entry<$address>) {
                self.0.remove((address, len));
            }
        }

        impl Table<$address> for Bart {
            const NAME: &'static str = "ts_bart";
            fn load(entries: &[Entry<$address>]) -> Self {
                let mut table = Self(ts_bart::Table::default());
                for &entry in entries {
                    Table::<$address>::insert(&mut table, entry);
                }
                table
            }
            fn sum(&self, addresses: &[$address]) -> u64 {
                let find = |address: &$address| self.0.lookup(address.standard().into());
                addresses
                    .iter()
                    .filter_map(find)
                    .map(|&value| u64::from(value))
                    .sum()
            }
            fn insert(&mut self, (address, len, value): Entry<$address>) {
                self.0.insert(net(address, len), value);
            }
            fn remove(&mut self, (address, len, _): Entry<$address>) {
                self.0.remove(net(address, len));
            }
        }
    };
}

fn net(address: impl Family, len: u8) -> IpNet {
    match address.standard().into() {
        IpAddr::V4(address) => Ipv4Net::new(address, len).expect("at most 32").into(),
        IpAddr::V6(address) => Ipv6Net::new(address, len).expect("at most 128").into(),
    }
}

pub struct TreeBitmap<S: ip_network_table_deps_treebitmap::address::Address>(IpLookupTable<S, u32>);
pub struct IpTrie<P: iptrie::IpRootPrefix>(iptrie::map::LCTrieMap<P, u32>);
pub struct Pop<A>(Poptrie<(A, u8), u32>)
where
    (A, u8): poptrie::Prefix;
pub struct Bart(ts_bart::Table<u32>);

peers!(u32, Ipv4Addr, Ipv4Net, iptrie::Ipv4Prefix);
peers!(u128, Ipv6Addr, Ipv6Net, iptrie::Ipv6Prefix);
