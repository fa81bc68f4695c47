//! The tables and the addresses, made by rules that are stated here and from one seed, so that every run has the same.
//!
//! The Internet's tables have its lengths in its shares (global BGP tables of 2024 and 2025, rounded) and its clusters: registries
//! gave out blocks, blocks are announced in neighbouring pieces, and some pieces are announced within longer ones.
use std::collections::HashSet;

/// A prefix, its length and a value.
pub type Entry<A> = (A, u8, u32);

/// Numbers that look random (Marsaglia's xorshift64*).
pub struct Numbers(u64);

impl Numbers {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}

/// Shares of lengths, in thousandths.
const V4_LENGTHS: [(u8, usize); 17] = [
    (24, 598),
    (23, 95),
    (22, 108),
    (21, 52),
    (20, 45),
    (19, 27),
    (18, 14),
    (17, 9),
    (16, 14),
    (15, 2),
    (14, 2),
    (13, 1),
    (12, 1),
    (11, 1),
    (25, 10),
    (28, 11),
    (32, 10),
];
const V6_LENGTHS: [(u8, usize); 15] = [
    (48, 470),
    (32, 130),
    (44, 100),
    (40, 90),
    (36, 45),
    (46, 40),
    (47, 35),
    (29, 25),
    (42, 15),
    (45, 12),
    (33, 12),
    (34, 10),
    (38, 8),
    (56, 4),
    (64, 4),
];

fn length(numbers: &mut Numbers, shares: &[(u8, usize)]) -> u8 {
    let mut at = numbers.below(shares.iter().map(|share| share.1).sum());
    for &(len, share) in shares {
        if at < share {
            return len;
        }
        at -= share;
    }
    unreachable!("the shares were summed")
}

/// What differs between the families.
pub trait Address: Copy + Ord + std::hash::Hash + std::fmt::Debug + Send + Sync + 'static {
    const BITS: u8;
    fn of(wide: u128) -> Self;
    fn wide(self) -> u128;
}

impl Address for u32 {
    const BITS: u8 = 32;
    fn of(wide: u128) -> Self {
        wide as u32
    }
    fn wide(self) -> u128 {
        self.into()
    }
}

impl Address for u128 {
    const BITS: u8 = 128;
    fn of(wide: u128) -> Self {
        wide
    }
    fn wide(self) -> u128 {
        self
    }
}

fn host_mask(bits: u8, len: u8) -> u128 {
    (1_u128 << (bits - len) as u32 >> u32::from(len == 0 && bits == 128)).wrapping_sub(1)
}

/// `count` prefixes: six in ten follow the one before at its length, two in ten lie within an earlier one, the others begin somewhere
/// new, where `somewhere` says.
fn clustered<A: Address>(
    count: usize,
    shares: &[(u8, usize)],
    somewhere: impl Fn(&mut Numbers) -> u128,
    last: u128,
) -> Vec<Entry<A>> {
    let mut numbers = Numbers::new(0x5eed_0000_0000_0001);
    let mut seen = HashSet::with_capacity(count);
    let mut entries: Vec<Entry<A>> = Vec::with_capacity(count);
    let mut before = (somewhere(&mut numbers), 16);
    while entries.len() < count {
        let mut len = length(&mut numbers, shares);
        let start = match numbers.below(10) {
            0..6 => {
                len = if numbers.below(3) == 0 { len } else { before.1 };
                before.0 + host_mask(A::BITS, before.1) + 1
            }
            6..8 if !entries.is_empty() => {
                let (outer, outer_len, _) = entries[numbers.below(entries.len())];
                len = len.max(outer_len);
                outer.wide()
                    | (u128::from(numbers.next()) << 64 | u128::from(numbers.next()))
                        & host_mask(A::BITS, outer_len)
            }
            _ => somewhere(&mut numbers),
        };
        let start = start & !host_mask(A::BITS, len);
        if start > last {
            before = (somewhere(&mut numbers), len);
            continue;
        }
        before = (start, len);
        if seen.insert((start, len)) {
            entries.push((A::of(start), len, entries.len() as u32 + 1));
        }
    }
    entries.sort_unstable();
    entries
}

/// 1,000,000 prefixes between 1.0.0.0 and 223.255.255.255, in order. Four in ten begin in one of 8,000 busy /16.
pub fn internet_v4() -> Vec<Entry<u32>> {
    let somewhere = |numbers: &mut Numbers| {
        let busy = numbers.below(10) < 4;
        let high = if busy {
            0x0100 + (numbers.below(8000) as u128 * 40_503) % 0xdeff
        } else {
            0x0100 + numbers.below(0xdeff) as u128
        };
        high << 16 | numbers.below(1 << 16) as u128
    };
    clustered(1_000_000, &V4_LENGTHS, somewhere, 0xdfff_ffff)
}

/// 200,000 prefixes of the registries' /12 and of 2001::/16, in order, in the first sixty-fourth of each.
pub fn internet_v6() -> Vec<Entry<u128>> {
    let somewhere = |numbers: &mut Numbers| {
        let (block, len) = [
            (0x2001_u128, 16),
            (0x2400, 12),
            (0x2600, 12),
            (0x2800, 12),
            (0x2a00, 12),
            (0x2a00, 12),
            (0x2c00, 12),
            (0x2a10, 12),
        ][numbers.below(8)];
        let allocation = numbers.below(1 << (32 - len - 6 + 3 * usize::from(len == 16))) as u128;
        block << 112 | allocation << 96 | u128::from(numbers.next() >> 48) << 80
    };
    clustered(200_000, &V6_LENGTHS, somewhere, 0x2c0f << 112 | ((1 << 112) - 1))
}

/// 10,000 of the 16,384 /24 of 10.64.0.0/10, in order: what hosts that pick subnets at random lease.
pub fn overlay() -> Vec<Entry<u32>> {
    let mut numbers = Numbers::new(0x5eed_0000_0000_0002);
    let mut thirds: Vec<u32> = (0..16_384).collect();
    numbers.shuffle(&mut thirds);
    let mut entries: Vec<_> = thirds[..10_000]
        .iter()
        .map(|third| (0x0a40_0000 | third << 8, 24))
        .collect();
    entries.sort_unstable();
    entries
        .into_iter()
        .zip(1..)
        .map(|((address, len), value)| (address, len, value))
        .collect()
}

/// How addresses are chosen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// A random address in a random prefix.
    Within,
    /// Any address between the table's first and last.
    Uniform,
    /// A random address in the prefix of rank n u^4 in a random order: one prefix in ten gets more than half of the addresses.
    Skewed,
}

impl Choice {
    pub const ALL: [Self; 3] = [Self::Within, Self::Uniform, Self::Skewed];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Within => "random",
            Self::Uniform => "uniform",
            Self::Skewed => "skewed",
        }
    }
}

pub fn addresses<A: Address>(entries: &[Entry<A>], choice: Choice, count: usize) -> Vec<A> {
    let mut numbers = Numbers::new(0x5eed_0000_0000_0003);
    let mut order: Vec<usize> = (0..entries.len()).collect();
    numbers.shuffle(&mut order);
    let (first, last) = (entries[0].0.wide(), entries[entries.len() - 1]);
    let span = last.0.wide() + host_mask(A::BITS, last.1) - first;
    (0..count)
        .map(|_| {
            let any = u128::from(numbers.next()) << 64 | u128::from(numbers.next());
            let rank = match choice {
                Choice::Uniform => return A::of(first + any % span),
                Choice::Within => numbers.below(entries.len()),
                Choice::Skewed => {
                    let unit = numbers.below(1 << 30) as f64 / f64::from(1 << 30);
                    (unit.powi(4) * entries.len() as f64) as usize
                }
            };
            let (address, len, _) = entries[order[rank]];
            A::of(address.wide() | any & host_mask(A::BITS, len))
        })
        .collect()
}
