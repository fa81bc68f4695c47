//! [`Lookup`]: what a lookup reads, in memory that one thread may change while others read it.
//!
//! Everything here is `AtomicU32`, so that readers need no lock and the crate no `unsafe`; on common processors such loads and
//! stores are plain ones. A word that leads to a block is stored with release and loaded with acquire order, after the block is
//! complete, and a block never changes in a way that a reader could see half of.
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering};

use super::node::{NODE, Nodes};
use crate::address::{Bits, Packed};
use crate::prefix::Prefix;

/// What [`Lookup::slot`] finds where no prefix holds the address.
pub const NO_SLOT: u32 = 0x7fff_ffff;

/// How many addresses of a batch go down together: more lines of memory than the processor waits for at once, so that their number
/// is its own.
const LANES: usize = 32;

/// From how many bytes of nodes on they do, in IPv6, whose lookups go through three nodes or four. What stays in the caches next to the
/// processor does not repay the steps. Nor do lookups of IPv4, mostly of one node, which the processor overlaps by itself.
pub(super) const STAGED_FROM_BYTES: usize = 1 << 18;

/// Which part of a table's address is resolved by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape<B> {
    /// Every prefix but the one of length 0 lies in the prefix of `skip` bits at `window`.
    pub(super) window: B,
    pub(super) skip: u8,
    /// The root is indexed by the bits from `skip` to this one, a multiple of 8.
    pub(super) depth: u8,
}

impl<B: Bits> Shape<B> {
    /// How many bits index the root.
    pub(super) const fn root_bits(&self) -> u8 {
        self.depth - self.skip
    }

    pub(super) fn holds(&self, bits: B) -> bool {
        (bits ^ self.window) & B::mask(self.skip) == B::ZERO
    }

    pub(super) fn root_index(&self, bits: B) -> usize {
        bits.field(self.skip, self.root_bits())
    }
}

/// The part of a [`PrefixTable`](super::PrefixTable) that finds an address's slot.
#[derive(Debug)]
pub struct Lookup<P: Prefix> {
    shape: Shape<BitsOf<P>>,
    mask: BitsOf<P>,
    /// What addresses outside the window find: the slot of the prefix of length 0.
    outside: AtomicU32,
    root: Box<[AtomicU32]>,
    words: Box<[AtomicU32]>,
}

pub(super) type BitsOf<P> = <<P as Prefix>::Address as crate::address::Address>::Bits;

impl<P: Prefix> Lookup<P> {
    pub(super) fn new(shape: Shape<BitsOf<P>>, outside: u32, root: Vec<u32>, words: Vec<u32>) -> Self {
        let atomic = |words: Vec<u32>| words.into_iter().map(AtomicU32::new).collect();
        Self {
            shape,
            mask: BitsOf::<P>::mask(shape.skip),
            outside: AtomicU32::new(outside),
            root: atomic(root),
            words: atomic(words),
        }
    }

    /// The slot of the longest prefix that holds `address`, or [`NO_SLOT`].
    #[inline]
    #[must_use]
    pub fn slot(&self, address: impl Packed<P::Address>) -> u32 {
        self.find(address.bits())
    }

    /// [`slot`](Self::slot) of each address, into the same place of `slots`; the shorter of the two says how many.
    ///
    /// Inlined into its caller, so that it is compiled for the processor that the caller is compiled for.
    #[inline(always)]
    pub fn slots<A: Packed<P::Address>>(&self, addresses: &[A], slots: &mut [u32]) {
        let view = self.view();
        if P::BITS == 32 || size_of_val(&*self.words) < STAGED_FROM_BYTES {
            for (address, slot) in addresses.iter().zip(slots) {
                *slot = view.find(address.bits());
            }
            return;
        }
        for (addresses, slots) in addresses.chunks(LANES).zip(slots.chunks_mut(LANES)) {
            view.staged(addresses, slots);
        }
    }

    #[inline(always)]
    pub(super) fn find(&self, bits: BitsOf<P>) -> u32 {
        self.view().find(bits)
    }

    #[inline(always)]
    fn view(&self) -> View<'_, P> {
        View {
            shape: self.shape,
            mask: self.mask,
            outside: &self.outside,
            root: &self.root,
            nodes: self.nodes(),
        }
    }

    #[inline(always)]
    pub(super) fn nodes(&self) -> Nodes<'_> {
        Nodes(&self.words)
    }

    /// Where the memory that lookups read lies, for advice to the system about it.
    #[must_use]
    pub fn memory(&self) -> [Range<*const u8>; 2] {
        [range(&self.root), range(&self.words)]
    }

    /// How many bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.root) + size_of_val(&*self.words)
    }

    pub(super) const fn shape(&self) -> &Shape<BitsOf<P>> {
        &self.shape
    }

    pub(super) const fn root(&self) -> &[AtomicU32] {
        &self.root
    }

    pub(super) const fn outside(&self) -> &AtomicU32 {
        &self.outside
    }

    pub(super) fn capacity(&self) -> usize {
        self.words.len()
    }

    pub(super) fn word(&self, at: usize) -> u32 {
        self.words[at].load(Ordering::Relaxed)
    }

    pub(super) fn set_word(&self, at: usize, word: u32) {
        self.words[at].store(word, Ordering::Release);
    }

    /// The same in memory of its own, with room for `capacity` words, or as many as there are.
    pub(super) fn copy(&self, capacity: usize) -> Self {
        let copied = |words: &[AtomicU32]| {
            words
                .iter()
                .map(|word| word.load(Ordering::Relaxed))
                .collect::<Vec<u32>>()
        };
        let mut words = Vec::with_capacity(capacity.max(self.words.len()));
        words.extend(self.words.iter().map(|word| word.load(Ordering::Relaxed)));
        words.resize(capacity.max(self.words.len()), 0);
        Self::new(
            self.shape,
            self.outside.load(Ordering::Relaxed),
            copied(&self.root),
            words,
        )
    }

    /// The word at `bits`, and the last address up to `limit` that is known to find it too.
    pub(super) fn upwards(&self, bits: BitsOf<P>, limit: BitsOf<P>) -> (u32, BitsOf<P>) {
        let Shape { window, skip, depth } = self.shape;
        if !self.shape.holds(bits) {
            let outside = self.outside.load(Ordering::Relaxed);
            let end = window.before().filter(|_| bits < window);
            return (outside, end.unwrap_or(BitsOf::<P>::MAX));
        }
        let mut index = self.shape.root_index(bits);
        let word = self.root[index].load(Ordering::Relaxed);
        if word & NODE != 0 {
            return self.upwards_below(word, bits, depth);
        }
        let last = |index| {
            window & BitsOf::<P>::mask(skip)
                | BitsOf::<P>::placed(index, depth)
                | BitsOf::<P>::host_mask(depth)
        };
        while last(index) < limit
            && self
                .root
                .get(index + 1)
                .is_some_and(|next| next.load(Ordering::Relaxed) == word)
        {
            index += 1;
        }
        (word, last(index))
    }

    fn upwards_below(&self, mut word: u32, bits: BitsOf<P>, mut depth: u8) -> (u32, BitsOf<P>) {
        let mut last = bits;
        while word & NODE != 0 {
            let index = bits.byte(depth / 8);
            let end = self.nodes().map(word).next(usize::from(index) + 1).unwrap_or(256) - 1;
            word = self.nodes().below(word, index);
            last = bits & BitsOf::<P>::mask(depth)
                | BitsOf::<P>::placed(end, depth + 8)
                | BitsOf::<P>::host_mask(depth + 8);
            depth += 8;
        }
        (word, last)
    }

    /// The word at `bits`, and the first address from `limit` on that is known to find it too.
    pub(super) fn downwards(&self, bits: BitsOf<P>, limit: BitsOf<P>) -> (u32, BitsOf<P>) {
        let Shape { window, skip, depth } = self.shape;
        if !self.shape.holds(bits) {
            let outside = self.outside.load(Ordering::Relaxed);
            let start = (window | BitsOf::<P>::host_mask(skip))
                .after()
                .filter(|_| bits > window);
            return (outside, start.unwrap_or(BitsOf::<P>::ZERO));
        }
        let mut index = self.shape.root_index(bits);
        let word = self.root[index].load(Ordering::Relaxed);
        if word & NODE != 0 {
            return self.downwards_below(word, bits, depth);
        }
        let first = |index| window & BitsOf::<P>::mask(skip) | BitsOf::<P>::placed(index, depth);
        while first(index) > limit && index > 0 && self.root[index - 1].load(Ordering::Relaxed) == word {
            index -= 1;
        }
        (word, first(index))
    }

    fn downwards_below(&self, mut word: u32, bits: BitsOf<P>, mut depth: u8) -> (u32, BitsOf<P>) {
        let mut first = bits;
        while word & NODE != 0 {
            let index = bits.byte(depth / 8);
            let start = self.nodes().map(word).last(usize::from(index));
            word = self.nodes().below(word, index);
            first = bits & BitsOf::<P>::mask(depth) | BitsOf::<P>::placed(start, depth + 8);
            depth += 8;
        }
        (word, first)
    }
}

/// A lookup's parts, copied, since all that lies in memory counts as changed after each word that was read with acquire order.
struct View<'a, P: Prefix> {
    shape: Shape<BitsOf<P>>,
    mask: BitsOf<P>,
    outside: &'a AtomicU32,
    root: &'a [AtomicU32],
    nodes: Nodes<'a>,
}

impl<P: Prefix> View<'_, P> {
    #[inline(always)]
    fn find(&self, bits: BitsOf<P>) -> u32 {
        if (bits ^ self.shape.window) & self.mask != BitsOf::<P>::ZERO {
            return self.outside.load(Ordering::Acquire);
        }
        let mut word = self.root[self.shape.root_index(bits)].load(Ordering::Acquire);
        let mut at = self.shape.depth / 8;
        while word & NODE != 0 {
            word = self.nodes.below(word, bits.byte(at));
            at += 1;
        }
        word
    }

    /// The same for at most [`LANES`] addresses, which go down together: each step reads a word for every address before the next
    /// step reads what these lead to, so that the processor waits for many lines of memory at once, and no branch hangs on a line
    /// that has not come.
    #[inline(always)]
    fn staged<A: Packed<P::Address>>(&self, addresses: &[A], slots: &mut [u32]) {
        let mut left = [0_u8; LANES];
        let mut runs = [0_usize; LANES];
        let outside = self.outside.load(Ordering::Acquire);
        let mut count = 0;
        for (lane, (address, slot)) in (0_u8..).zip(addresses.iter().zip(&mut *slots)) {
            let bits = address.bits();
            let inside = (bits ^ self.shape.window) & self.mask == BitsOf::<P>::ZERO;
            let word = self.root[self.shape.root_index(bits)].load(Ordering::Acquire);
            let word = if inside { word } else { outside };
            *slot = word;
            left[count] = lane;
            count += usize::from(word & NODE != 0);
        }
        let mut at = self.shape.depth / 8;
        while count > 0 {
            for (&lane, run) in left[..count].iter().zip(&mut runs) {
                let lane = usize::from(lane);
                *run = self.nodes.run_of(slots[lane], addresses[lane].byte_at(at));
            }
            let mut next = 0;
            for (step, &run) in runs[..count].iter().enumerate() {
                let lane = left[step];
                let word = self.nodes.run(slots[usize::from(lane)], run);
                slots[usize::from(lane)] = word;
                left[next] = lane;
                next += usize::from(word & NODE != 0);
            }
            count = next;
            at += 1;
        }
    }
}

/// Where `items` lie.
pub(super) fn range<T>(items: &[T]) -> Range<*const u8> {
    let Range { start, end } = items.as_ptr_range();
    start.cast()..end.cast()
}
