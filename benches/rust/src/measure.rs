//! What is measured, and how: rounds of all tables are interleaved, and the best round of each counts.
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use overlaynet_core::forward::{IpPrefix, Tables};

use crate::peers::{Bart, Family, IpTrie, Live, Ours, Pop, PrefixTrie, Table, TreeBitmap};
use crate::report::{Report, Target};
use crate::tables::{self, Choice, Entry, Numbers};

const ROUNDS: usize = 7;
const ADDRESSES: usize = 1 << 18;

/// Counts the bytes in use.
pub struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does it all.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        IN_USE.fetch_add(size, Ordering::Relaxed);
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn seconds<R>(work: impl FnOnce() -> R) -> f64 {
    let begun = Instant::now();
    black_box(work());
    begun.elapsed().as_secs_f64()
}

/// What is made, and the bytes that it takes.
fn weighed<R>(make: impl FnOnce() -> R) -> (R, usize) {
    let before = IN_USE.load(Ordering::Relaxed);
    let made = make();
    (made, IN_USE.load(Ordering::Relaxed) - before)
}

/// The nanoseconds that each of `ways` takes for one of `count`, in its best round.
fn best_of(count: usize, ways: &mut [&mut dyn FnMut() -> u64]) -> Vec<f64> {
    let mut best = vec![f64::MAX; ways.len()];
    for _ in 0..ROUNDS {
        for (way, best) in ways.iter_mut().zip(&mut best) {
            *best = best.min(seconds(&mut **way) * 1e9 / count as f64);
        }
    }
    best
}

/// What can be measured alone.
pub const GROUPS: [&str; 8] = [
    "v4", "v6", "overlay", "memory", "updates", "loading", "pump", "readers",
];

pub fn all(report: &mut Report) {
    for group in GROUPS {
        only(report, group);
    }
}

/// Measures one of [`GROUPS`]; false if there is none of that name.
pub fn only(report: &mut Report, group: &str) -> bool {
    match group {
        "v4" => lookups_v4(report, "v4", &tables::internet_v4(), 4.0),
        "v6" => lookups_v6(report, &tables::internet_v6()),
        "overlay" => lookups_v4(report, "overlay", &tables::overlay(), 3.5),
        "memory" => memory(report, &tables::internet_v4(), &tables::internet_v6()),
        "updates" => {
            updates(report, "v4", &tables::internet_v4());
            updates(report, "overlay", &tables::overlay());
        }
        "loading" => loading(report, &tables::internet_v4()),
        "pump" => pump(report, &tables::overlay()),
        "readers" => readers(report, &tables::internet_v4()),
        _ => return false,
    }
    true
}

macro_rules! lookups {
    ($name:ident, $address:ty, $standard:ty, $iptrie:ty) => {
        fn $name(report: &mut Report, table: &str, entries: &[Entry<$address>], at_least: f64) {
            let ours: Ours<$address> = Ours::load(entries);
            let trie: PrefixTrie<$address> = Table::load(entries);
            let tree: TreeBitmap<$standard> = Table::<$address>::load(entries);
            let fixed: IpTrie<$iptrie> = Table::<$address>::load(entries);
            let pop: Pop<$address> = Table::load(entries);
            let bart: Bart = Table::<$address>::load(entries);
            for choice in Choice::ALL {
                let addresses = tables::addresses(entries, choice, ADDRESSES);
                let sum = trie.sum(&addresses);
                assert!(
                    sum == ours.sum(&addresses) && sum == ours.one_by_one(&addresses),
                    "ours finds other values"
                );
                for (name, other) in [
                    (
                        <TreeBitmap<$standard> as Table<$address>>::NAME,
                        tree.sum(&addresses),
                    ),
                    (
                        <IpTrie<$iptrie> as Table<$address>>::NAME,
                        fixed.sum(&addresses),
                    ),
                    (
                        <Pop<$address> as Table<$address>>::NAME,
                        pop.sum(&addresses),
                    ),
                    (
                        <Bart as Table<$address>>::NAME,
                        Table::<$address>::sum(&bart, &addresses),
                    ),
                ] {
                    if sum != other {
                        eprintln!("{name} finds other values in the {table} table");
                    }
                }
                let best = best_of(
                    ADDRESSES,
                    &mut [
                        &mut || ours.sum(&addresses),
                        &mut || ours.slots(&addresses),
                        &mut || ours.one_by_one(&addresses),
                        &mut || trie.sum(&addresses),
                        &mut || tree.sum(&addresses),
                        &mut || pop.sum(&addresses),
                        &mut || Table::<$address>::sum(&bart, &addresses),
                        &mut || fixed.sum(&addresses),
                    ],
                );
                let (ours, peers) = best.split_at(3);
                let names = [
                    <PrefixTrie<$address> as Table<$address>>::NAME,
                    <TreeBitmap<$standard> as Table<$address>>::NAME,
                    <Pop<$address> as Table<$address>>::NAME,
                    <Bart as Table<$address>>::NAME,
                    <IpTrie<$iptrie> as Table<$address>>::NAME,
                ];
                let what = format!("{table} lookup, {}", choice.name());
                for (form, nanoseconds) in [
                    "batch, value read",
                    "batch, slots",
                    "one by one, prefix and value",
                ]
                .into_iter()
                .zip(ours)
                {
                    report.add(
                        format!("{what}: overlaynet, {form}"),
                        *nanoseconds,
                        "ns",
                        Target::None,
                    );
                }
                for (name, nanoseconds) in names.into_iter().zip(peers) {
                    report.add(format!("{what}: {name}"), *nanoseconds, "ns", Target::None);
                }
                // The last is not dynamic.
                let fastest = peers[..4].iter().copied().fold(f64::MAX, f64::min);
                report.ratio(
                    format!("{what}, value read: fastest dynamic crate / overlaynet"),
                    fastest / ours[0],
                    at_least,
                );
                report.add(
                    format!("{what}, slots: fastest dynamic crate / overlaynet"),
                    fastest / ours[1],
                    "x",
                    Target::None,
                );
            }
        }
    };
}

lookups!(lookups_v4, u32, Ipv4Addr, iptrie::Ipv4Prefix);
lookups!(lookups_of_v6, u128, Ipv6Addr, iptrie::Ipv6Prefix);

fn lookups_v6(report: &mut Report, entries: &[Entry<u128>]) {
    lookups_of_v6(report, "v6", entries, 4.0);
}

fn memory(report: &mut Report, v4: &[Entry<u32>], v6: &[Entry<u128>]) {
    let (ours, all) = weighed(|| Ours::<u32>::load(v4));
    let (_trie, peer) = weighed(|| PrefixTrie::<u32>::load(v4));
    weigh(report, "v4", ours.table.as_lookup().bytes(), all, peer, v4.len());
    report.add(
        "memory, v4: lookup structure / prefix-trie",
        ours.table.as_lookup().bytes() as f64 / peer as f64,
        "x",
        Target::AtMost(0.5),
    );
    report.add(
        "memory, v4: all that updates need / prefix-trie",
        all as f64 / peer as f64,
        "x",
        Target::AtMost(1.6),
    );
    drop(ours);
    let (ours, all) = weighed(|| Ours::<u128>::load(v6));
    let (_trie, peer) = weighed(|| PrefixTrie::<u128>::load(v6));
    weigh(report, "v6", ours.table.as_lookup().bytes(), all, peer, v6.len());
}

fn weigh(report: &mut Report, table: &str, lookup: usize, all: usize, peer: usize, prefixes: usize) {
    for (what, bytes) in [("lookup structure", lookup), ("all", all), ("prefix-trie", peer)] {
        report.add(
            format!("memory, {table}: {what}"),
            bytes as f64 / prefixes as f64,
            "bytes a prefix",
            Target::None,
        );
    }
}

/// 50,000 prefixes of the table, chosen at random, are removed and inserted again.
fn updates(report: &mut Report, name: &str, entries: &[Entry<u32>]) {
    let mut chosen = entries.to_vec();
    Numbers::new(0x5eed_0000_0000_0004).shuffle(&mut chosen);
    chosen.truncate(50_000);
    let (mut ours, mut live) = (Ours::load(entries), Live::load(entries));
    let (mut trie, mut tree): (PrefixTrie<u32>, TreeBitmap<Ipv4Addr>) =
        (Table::load(entries), Table::<u32>::load(entries));
    let mut best = [[f64::MAX; 2]; 4];
    for _ in 0..ROUNDS {
        for (best, [remove, insert]) in best.iter_mut().zip([
            change(&mut live, &chosen),
            change(&mut ours, &chosen),
            change(&mut trie, &chosen),
            change::<TreeBitmap<Ipv4Addr>>(&mut tree, &chosen),
        ]) {
            best[0] = best[0].min(remove);
            best[1] = best[1].min(insert);
        }
    }
    for (at, what) in ["remove", "insert"].into_iter().enumerate() {
        for (table, best) in [
            "overlaynet, visible to readers",
            "overlaynet, no readers",
            "prefix-trie",
            "treebitmap",
        ]
        .into_iter()
        .zip(best)
        {
            report.add(format!("{name} {what}: {table}"), best[at], "ns", Target::None);
        }
        report.add(
            format!("{name} {what}, visible to readers: overlaynet / prefix-trie"),
            best[0][at] / best[2][at],
            "x",
            Target::AtMost(3.0),
        );
    }
}

/// Nanoseconds for one removal and for one insertion.
fn change<T: Table<u32>>(table: &mut T, chosen: &[Entry<u32>]) -> [f64; 2] {
    let each = 1e9 / chosen.len() as f64;
    let remove = seconds(|| chosen.iter().for_each(|&entry| table.remove(entry)));
    let insert = seconds(|| chosen.iter().for_each(|&entry| table.insert(entry)));
    [remove * each, insert * each]
}

fn loading(report: &mut Report, entries: &[Entry<u32>]) {
    let mut shuffled = entries.to_vec();
    Numbers::new(0x5eed_0000_0000_0005).shuffle(&mut shuffled);
    for (order, entries) in [("in order", entries), ("in random order", &shuffled)] {
        let mut best = [f64::MAX; 2];
        for _ in 0..3 {
            best[0] = best[0].min(seconds(|| Ours::<u32>::load(entries)));
            best[1] = best[1].min(seconds(|| PrefixTrie::<u32>::load(entries)));
        }
        let each = 1e9 / entries.len() as f64;
        report.add(
            format!("bulk load, v4, {order}: overlaynet"),
            best[0] * each,
            "ns a prefix",
            Target::None,
        );
        report.add(
            format!("bulk load, v4, {order}: prefix-trie"),
            best[1] * each,
            "ns a prefix",
            Target::None,
        );
        report.ratio(
            format!("bulk load, v4, {order}: prefix-trie / overlaynet"),
            best[1] / best[0],
            1.0,
        );
    }
}

/// The pump's whole picture of an overlay, which is exchanged as one when a peer comes or goes.
fn pump(report: &mut Report, entries: &[Entry<u32>]) {
    let peers: Vec<_> = entries
        .iter()
        .map(|&(address, len, value)| {
            let endpoint = SocketAddr::from((Ipv4Addr::from_bits(0xac10_0000 + value), 8285));
            (endpoint, [IpPrefix::V4(address.prefix(len))])
        })
        .collect();
    let build = || {
        let mut tables = Tables::new(1500);
        for (endpoint, subnets) in &peers {
            tables.add_peer(*endpoint, subnets);
        }
        tables.endpoints().len() as u64
    };
    let each = best_of(1, &mut [&mut { build }])[0];
    report.add(
        "the pump's tables of 10,000 peers, built anew",
        each / 1e6,
        "ms",
        Target::None,
    );
}

/// A reader's lookups a second, alone and while a writer makes 100,000 updates a second, in turns.
fn readers(report: &mut Report, entries: &[Entry<u32>]) {
    const TURN: Duration = Duration::from_millis(400);
    const UPDATES_A_MS: usize = 100;
    let Live(mut table, reader) = Live::<u32>::load(entries);
    let mut reader = reader.expect("it was loaded with one");
    let addresses = tables::addresses(entries, Choice::Within, ADDRESSES);
    let mut chosen = entries.to_vec();
    Numbers::new(0x5eed_0000_0000_0006).shuffle(&mut chosen);
    let (done, found) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut updates = 0_usize;
    let mut rates = [Vec::new(), Vec::new()];
    let mut pace = f64::MAX;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut values = [0; 256];
            while !done.load(Ordering::Relaxed) {
                for part in addresses.chunks(values.len()) {
                    reader.begin().lookup_many(part, &mut values, 0);
                    found.fetch_add(part.len() as u64, Ordering::Relaxed);
                }
            }
        });
        for turn in 0..10 {
            let (begun, before, first) = (Instant::now(), found.load(Ordering::Relaxed), updates);
            while begun.elapsed() < TURN {
                if turn % 2 == 1 {
                    while (updates - first) < begun.elapsed().as_millis() as usize * UPDATES_A_MS {
                        let (address, len, value) = chosen[updates / 2 % chosen.len()];
                        match updates % 2 {
                            0 => drop(table.remove(&address.prefix(len))),
                            _ => drop(table.insert(address.prefix(len), value)),
                        }
                        updates += 1;
                    }
                }
                std::thread::sleep(Duration::from_micros(500));
            }
            let took = begun.elapsed().as_secs_f64();
            rates[turn % 2].push((found.load(Ordering::Relaxed) - before) as f64 / took);
            if turn % 2 == 1 {
                pace = pace.min((updates - first) as f64 / took);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let [alone, under] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    report.add(
        "readers: updates a second beside them",
        pace,
        "1/s",
        Target::AtLeast(95_000.0),
    );
    report.add(
        "readers: lookups a second, alone",
        alone / 1e6,
        "million/s",
        Target::None,
    );
    report.ratio("readers' throughput under a writer / without", under / alone, 0.9);
}

/// What the plain build is compared in.
pub const OURS: [&str; 3] = ["v4 lookup, random", "v6 lookup, random", "overlay lookup, random"];

/// Nanoseconds of each of [`OURS`].
pub fn ours_only() -> String {
    let (v4, v6, overlay) = (tables::internet_v4(), tables::internet_v6(), tables::overlay());
    let text = [batch(&v4), batch(&v6), batch(&overlay)].map(|nanoseconds| nanoseconds.to_string());
    text.join(" ")
}

fn batch<A: Family>(entries: &[Entry<A>]) -> f64 {
    let table = Ours::load(entries);
    let addresses = tables::addresses(entries, Choice::Within, ADDRESSES);
    best_of(ADDRESSES, &mut [&mut || table.slots(&addresses)])[0]
}

/// What instructions are counted of.
pub const COUNTED: [&str; 5] = [
    "v4 lookup: overlaynet",
    "v4 lookup: prefix-trie",
    "v6 lookup: overlaynet",
    "overlay lookup: overlaynet",
    "v4 insert or remove: overlaynet",
];

/// Does it so many times, for a tool that counts.
pub fn count(what: &str, times: usize) {
    match what {
        "v4 lookup: overlaynet" => look::<_, Ours<u32>>(&tables::internet_v4(), times),
        "v4 lookup: prefix-trie" => look::<_, PrefixTrie<u32>>(&tables::internet_v4(), times),
        "v6 lookup: overlaynet" => look::<_, Ours<u128>>(&tables::internet_v6(), times),
        "overlay lookup: overlaynet" => look::<_, Ours<u32>>(&tables::overlay(), times),
        _ => {
            let entries = tables::internet_v4();
            let mut chosen = entries.clone();
            Numbers::new(0x5eed_0000_0000_0004).shuffle(&mut chosen);
            let mut table = Live::<u32>::load(&entries);
            for &entry in &chosen[..times / 2] {
                table.remove(entry);
                table.insert(entry);
            }
        }
    }
}

fn look<A: Family, T: Table<A>>(entries: &[Entry<A>], times: usize) {
    let table = T::load(entries);
    let addresses = tables::addresses(entries, Choice::Within, 200_000);
    black_box(table.sum(&addresses[..times]));
}
