//! Making the nodes of many prefixes at once, in one pass over them in order.
use alloc::vec::Vec;

use super::entries::Entries;
use super::lookup::{BitsOf, Lookup, NO_SLOT, Shape};
use super::node::{Draft, Map};
use crate::address::{Address, Bits};
use crate::prefix::Prefix;

/// The most bits that index the root, by the family's address length, and how many of its words each prefix may cost: small
/// tables get small roots. 16 bits hold the IPv4 Internet's cost at 0.3 bytes a prefix; IPv6's prefixes lie so close together
/// that 21 bits save each lookup a node.
const fn root_limit(address_bits: u8) -> u8 {
    if address_bits == 32 { 16 } else { 21 }
}
const ROOT_WORDS_A_PREFIX: usize = 16;

/// What was built.
pub(super) struct Built<P: Prefix> {
    pub(super) lookup: Lookup<P>,
    /// How many of its words are in use. Some more are there for updates.
    pub(super) end: usize,
    /// At how many prefixes a larger root is worth its room.
    pub(super) outgrown_at: usize,
}

/// The nodes for the prefixes at `slots`, which come in order.
pub(super) fn build<P: Prefix, T>(entries: &Entries<P, T>, slots: &[u32]) -> Built<P> {
    let mut outside = NO_SLOT;
    let inside = match slots.first() {
        Some(&first) if entries.prefix_len(first) == Some(0) => {
            outside = first;
            &slots[1..]
        }
        _ => slots,
    };
    let (shape, outgrown_at) = shape(entries, inside);
    let mut builder = Builder {
        entries,
        words: Vec::new(),
        values: Vec::new(),
        draft: Draft::default(),
    };
    let mut root = alloc::vec![outside; 1 << shape.root_bits()];
    builder.cells(
        inside,
        outside,
        (shape.skip, shape.depth),
        &mut |_, first, end, word| {
            root[first..end].fill(word);
        },
    );
    let mut words = builder.words;
    let end = words.len();
    // Room for hundreds of changes to a large table, before it moves to more memory.
    words.resize(end + end / 128 + 32, 0);
    Built {
        lookup: Lookup::new(shape, outside, root, words),
        end,
        outgrown_at,
    }
}

/// How the prefixes at `slots` are laid out, and at how many of them a larger root is worth its room.
fn shape<P: Prefix, T>(entries: &Entries<P, T>, slots: &[u32]) -> (Shape<BitsOf<P>>, usize) {
    let prefix = |slot: Option<&u32>| slot.and_then(|&slot| entries.prefix(slot));
    let (Some(first), Some(last)) = (prefix(slots.first()), prefix(slots.last())) else {
        let shape = Shape {
            window: BitsOf::<P>::ZERO,
            skip: 0,
            depth: 0,
        };
        return (shape, usize::MAX);
    };
    let lowest = first.address().bits();
    // The first of all that begin at the lowest address is the shortest of them.
    let skip = lowest.common(last.address().bits()).min(first.len());
    let window = lowest & BitsOf::<P>::mask(skip);
    let longest = slots.iter().filter_map(|&slot| entries.prefix_len(slot)).max();
    let deepest = longest.unwrap_or(0).next_multiple_of(8);
    let mut depth = skip.next_multiple_of(8);
    let mut outgrown_at = usize::MAX;
    while depth < deepest && depth + 8 - skip <= root_limit(P::BITS) {
        let enough = (1 << (depth + 8 - skip)) / ROOT_WORDS_A_PREFIX;
        if slots.len() < enough {
            // Twice, so that a table whose size goes up and down isn't built anew each time.
            outgrown_at = 2 * enough;
            break;
        }
        depth += 8;
    }
    (Shape { window, skip, depth }, outgrown_at)
}

struct Builder<'a, P: Prefix, T> {
    entries: &'a Entries<P, T>,
    words: Vec<u32>,
    /// Values of the nodes that are being built, the outer ones' first.
    values: Vec<u32>,
    draft: Draft,
}

impl<P: Prefix, T> Builder<'_, P, T> {
    /// Gives `sink` what the cells hold that the bits from `from` to `to` distinguish, as (first, end, word), in order and without
    /// a gap. The prefixes of `slots` come in order and share the bits before `from`; `inherited` covers them all.
    fn cells(
        &mut self,
        slots: &[u32],
        inherited: u32,
        (from, to): (u8, u8),
        sink: &mut impl FnMut(&mut Self, usize, usize, u32),
    ) {
        let all = 1 << (to - from);
        // What covers the next cell, and up to which one.
        let mut covers = Vec::from([(all, inherited)]);
        let mut at = 0;
        let mut rest = slots;
        while let Some((&slot, behind)) = rest.split_first() {
            let Some(prefix) = self.entries.prefix(slot) else {
                rest = behind;
                continue;
            };
            let index = prefix.address().bits().field(from, to - from);
            self.covered(&mut covers, &mut at, index, sink);
            if prefix.len() <= to {
                covers.push((index + (1 << (to - prefix.len())), slot));
                rest = behind;
                continue;
            }
            let cell = P::truncated(prefix.address(), to);
            let count = rest
                .iter()
                .take_while(|&&slot| {
                    self.entries
                        .prefix(slot)
                        .is_some_and(|prefix| cell.covers(&prefix))
                })
                .count();
            let (below, behind) = rest.split_at(count);
            let node = self.node(below, covers.last().map_or(inherited, |cover| cover.1), to);
            sink(self, index, index + 1, node);
            at = index + 1;
            rest = behind;
        }
        self.covered(&mut covers, &mut at, all, sink);
    }

    /// Gives `sink` the cells from `at` to `end` that no node is for.
    fn covered(
        &mut self,
        covers: &mut Vec<(usize, u32)>,
        at: &mut usize,
        end: usize,
        sink: &mut impl FnMut(&mut Self, usize, usize, u32),
    ) {
        while let Some(&(until, word)) = covers.last() {
            let stop = until.min(end);
            if *at < stop {
                sink(self, *at, stop, word);
                *at = stop;
            }
            if until > end || covers.len() == 1 {
                return;
            }
            covers.pop();
        }
    }

    /// A node for prefixes that share their first `depth` bits and are longer.
    fn node(&mut self, slots: &[u32], inherited: u32, depth: u8) -> u32 {
        let mark = self.values.len();
        let mut map = Map::EMPTY;
        let mut last = None;
        let to = depth + 8;
        self.nested(slots, inherited, (depth, to), &mut |builder, first, word| {
            if last != Some(word) {
                map.set(first);
                builder.values.push(word);
                last = Some(word);
            }
        });
        // What covers them all is an offset too where that leaves room for theirs.
        let base = match (slots.first(), slots.last()) {
            (Some(&first), Some(last)) if last.wrapping_sub(inherited) >= 192 => first,
            _ => inherited,
        };
        let words = self.draft.words(&map, &self.values[mark..], base);
        let node = words.write(self.words.len(), |word| self.words.push(word));
        self.values.truncate(mark);
        node
    }

    fn nested(
        &mut self,
        slots: &[u32],
        inherited: u32,
        bits: (u8, u8),
        sink: &mut dyn FnMut(&mut Self, usize, u32),
    ) {
        self.cells(slots, inherited, bits, &mut |builder, first, _, word| {
            sink(builder, first, word);
        });
    }
}
