//! Verdicts that a worker remembers: which rule the packets of an IPv4 flow met last, so that a lookup need not be done again for each of them.
//!
//! Two places for each flow, chosen by a seeded hash; the newer flow stands in front, and the older of three has to go. What is written down names the
//! [`Lists`] that it is of, each of which has a number of its own, so that new lists never meet an old verdict. Who sends ever new flows makes every
//! lookup a full one, and pays for the look here on top, some cycles; nothing grows. Of a flow that gets a session nothing is written down: its packets
//! ask the lists no more.

use super::lists::{Fields, Lists};
use super::rule::Action;
use std::hash::{BuildHasher, RandomState};

/// Sets of two.
const SETS: usize = 4096;

/// The rule that a packet meets, or that there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Number of the rule among those of its [`Lists`]; no number of a rule when none matches.
    pub(super) rule: u32,
    /// The rule's counter.
    counter: u32,
}

/// What stands above the rule's number in [`Verdict::rule`].
const ACTION: u32 = 30;
const NO_RULE: u32 = 3;

impl Verdict {
    /// The verdict of the rule that a lookup found.
    #[inline(always)]
    pub(super) fn new(lists: &Lists, number: u32) -> Verdict {
        match lists.rules().get(number as usize) {
            Some(listed) => {
                let action = match listed.rule.action {
                    Action::Deny => 0,
                    Action::Permit => 1,
                    Action::Reflect => 2,
                };
                Verdict { rule: number | action << ACTION, counter: listed.counter }
            }
            None => Verdict { rule: NO_RULE << ACTION, counter: 0 },
        }
    }

    /// What the rule does; `None` when there is none.
    #[inline(always)]
    pub(super) fn action(self) -> Option<Action> {
        match self.rule >> ACTION {
            0 => Some(Action::Deny),
            1 => Some(Action::Permit),
            2 => Some(Action::Reflect),
            _ => None,
        }
    }

    /// Number of the rule among those of its [`Lists`].
    #[inline(always)]
    pub(super) fn number(self) -> usize {
        (self.rule & !(NO_RULE << ACTION)) as usize
    }

    /// The rule's counter.
    #[inline(always)]
    pub(super) fn counter(self) -> u32 {
        self.counter
    }
}

/// A flow, as lists see it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
struct Key {
    addresses: u64,
    /// The rest of the packet's fields. One bit is always set, so that an entry of zeros is none.
    fields: u64,
    lists: u64,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Entry {
    key: Key,
    verdict: Verdict,
}

/// A line.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
struct Set([Entry; 2]);

const _: () = assert!(size_of::<Set>() == 64);

/// See the module.
pub(super) struct Verdicts {
    sets: Box<[Set; SETS]>,
    seed: [u64; 2],
    /// The last lookup was for a flow that a session is opened for: the next is likely to be so too, and in no line.
    opening: bool,
}

impl std::fmt::Debug for Verdicts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verdicts").finish_non_exhaustive()
    }
}

impl Verdicts {
    pub(super) fn new() -> Verdicts {
        let random = RandomState::new();
        let sets = vec![Set::default(); SETS].into_boxed_slice().try_into();
        Verdicts {
            sets: sets.unwrap_or_else(|_| Box::new([Set::default(); SETS])),
            seed: [random.hash_one(0), random.hash_one(1)],
            opening: false,
        }
    }

    /// What `lists` say of a packet. Compiled into the loop, where the classifier gets the processor's instruction set.
    #[inline(always)]
    pub(super) fn lookup(&mut self, lists: &Lists, f: &Fields) -> Verdict {
        if f.is_v6 {
            return full(lists, f);
        }
        let flags = f.flags & lists.tcp_flags();
        let key = Key {
            addresses: (f.src as u64) << 32 | f.dst as u64 & 0xffff_ffff,
            fields: u64::from(f.sport) << 34
                | u64::from(f.dport) << 18
                | u64::from(f.protocol) << 10
                | u64::from(flags) << 2
                | u64::from(f.has_ports) << 1
                | 1,
            lists: lists.id(),
        };
        let wide =
            u128::from(key.addresses ^ self.seed[0]) * u128::from(key.fields ^ key.lists ^ self.seed[1]);
        let hash = (wide >> 64) as u64 ^ wide as u64;
        let set = &mut self.sets[hash as usize % SETS];
        if !self.opening {
            let [a, b] = &set.0;
            if a.key == key {
                return a.verdict;
            }
            if b.key == key {
                return b.verdict;
            }
        }
        let verdict = Verdict::new(lists, lists.find(f));
        self.opening = verdict.action() == Some(Action::Reflect);
        if !self.opening {
            set.0 = [Entry { key, verdict }, set.0[0]];
        }
        verdict
    }
}

#[inline(never)]
fn full(lists: &Lists, f: &Fields) -> Verdict {
    Verdict::new(lists, lists.find(f))
}
