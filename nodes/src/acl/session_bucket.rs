//! The line of a bucket of sessions: by it a session is found, and the one that has to go when room is needed.

use super::session::{GRAIN, State, Ticks};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering};
use wharf_engine::SwIfIndex;
use zerocopy::{FromZeros, KnownLayout};

/// Sessions in a bucket.
pub(super) const WAYS: usize = 8;

/// See the module.
#[derive(FromZeros, KnownLayout)]
#[repr(C, align(64))]
pub(super) struct Bucket {
    /// Odd while a writer is here; each leaves another number behind, by which it is seen that one was.
    pub(super) lock: AtomicU32,
    /// Bits of the hash; 0 is free.
    pub(super) tags: [AtomicU32; WAYS],
    /// What the record's state was, no longer ago than it opened or closed its connection: see [`Hint`].
    pub(super) hints: [AtomicU16; WAYS],
    /// The lower bits of who has it.
    pub(super) owners: [AtomicU8; WAYS],
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// A state in two bytes, so that who needs room looks at one line, and then at the record of the one that is to go: the half-open one, else the one that
/// was silent for longest. Packets that only come again do not change it, so a session can be younger than it says, never older.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hint(pub(super) u16);

impl Hint {
    const ESTABLISHED: u16 = 1 << 15;
    /// Of ticks, in a unit of time.
    pub(super) const SHIFT: u32 = GRAIN.ilog2();

    pub(super) fn of(state: State) -> Hint {
        let time = (state.last().0 >> Hint::SHIFT) as u16 & !Hint::ESTABLISHED;
        Hint(time | if state.is_established() { Hint::ESTABLISHED } else { 0 })
    }

    /// In a rank: half-open.
    const HALF_OPEN: u32 = 1 << 15;

    /// How long it was silent at most, and above that whether it is half-open: the greatest is missed least.
    #[inline(always)]
    pub(super) fn rank(self, now: Ticks) -> u32 {
        let age = ((now.0 >> Hint::SHIFT) as u16).wrapping_sub(self.0) & !Hint::ESTABLISHED;
        // Another worker's time may be ahead.
        let age = if age > Hint::ESTABLISHED - 256 { 0 } else { age };
        u32::from(age) | (u32::from(!self.0) & Hint::HALF_OPEN)
    }

    /// How long it was silent at most.
    pub(super) fn age(self, now: Ticks) -> u32 {
        self.rank(now) & !Hint::HALF_OPEN
    }
}

impl Bucket {
    /// A bit for each way that has the tag.
    #[inline(always)]
    pub(super) fn hits(&self, tag: u32) -> u32 {
        let hit = |way: usize| u32::from(self.tags[way].load(Ordering::Relaxed) == tag) << way;
        (0..WAYS).fold(0, |hits, way| hits | hit(way))
    }

    /// A bit for each way that is free.
    #[inline(always)]
    pub(super) fn free(&self) -> u32 {
        self.hits(0)
    }

    /// The way of an interface that is missed least, by its hint, and what is said of it there. Not of the ways `not`.
    #[inline(always)]
    pub(super) fn least(&self, owner: SwIfIndex, not: u32, now: Ticks) -> Option<Least> {
        // By columns, for the processor's wide instructions.
        let used = self.tags.each_ref().map(|tag| u32::from(tag.load(Ordering::Relaxed) != 0));
        let own = self.owners.each_ref().map(|of| u32::from(of.load(Ordering::Relaxed) == owner.0 as u8));
        let hints = self.hints.each_ref().map(|hint| hint.load(Ordering::Relaxed));
        let mut best = 0;
        for way in 0..WAYS {
            let counts = used[way] & own[way] & !(not >> way);
            let rank = Hint(hints[way]).rank(now) << 3 | way as u32 | 1 << 31;
            best = best.max(rank & counts.wrapping_neg());
        }
        (best != 0).then_some(Least(best & !(1 << 31)))
    }
}

/// [`Hint::rank`] and way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Least(u32);

impl Least {
    pub(super) fn way(self) -> usize {
        self.0 as usize % WAYS
    }

    pub(super) fn rank(self) -> u32 {
        self.0 >> 3
    }

    pub(super) fn is_half_open(self) -> bool {
        self.rank() & Hint::HALF_OPEN != 0
    }
}
