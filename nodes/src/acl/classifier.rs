//! A compiled list: the first of up to [`MAX_RULES`] boxes in five dimensions that holds a point.
//!
//! The boxes are sorted into a few trees. A node of a tree is one cache line: up to 15 sorted bounds in one dimension, which are compared
//! at once and give one of 16 children, so that 10,000 rules are three or four steps away. A leaf is a block of eight boxes that are
//! compared at once, all of them always. What a lookup costs is so the number of trees, their depth and the length of their
//! leaves: properties of the rules, not of the packets that somebody may choose. A hash of masks (tuple space search) has no such bound.
//!
//! Boxes that would be cut by too many nodes (sources said here, ports said there) are kept apart in trees of their own, at most
//! [`MAX_TREES`]. A list for which that is not enough within the limits of memory is refused.
//!
//! The unit of cost is a step: a node or a block. `build` sees to it that the longest way takes at most [`MAX_UNEVEN`] times the steps of the
//! usual one, see [`Shape`].

mod build;

/// Dimensions: source, destination, source port, destination port, protocol.
pub const DIMENSIONS: usize = 5;
/// The dimension of protocols.
const PROTOCOL: usize = 4;
/// Rules of a table at most.
pub const MAX_RULES: usize = 65_536;
/// Trees of a table at most.
pub const MAX_TREES: usize = 8;
/// Bytes of a table at most.
pub const MAX_BYTES: usize = 64 << 20;
/// Steps of the longest way through a table at most, as a multiple of the usual one.
pub const MAX_UNEVEN: f64 = 2.0;
/// The answer when no box holds the point.
pub const NONE: u32 = u32::MAX;

const FANOUT: usize = 16;
const LANES: usize = 8;
/// Boxes of a leaf when trees need not be small at any price.
const LEAF: usize = LANES;
/// Blocks of a leaf at most.
const MAX_BLOCKS: usize = 8;
/// A reference to a leaf, not a node.
const IS_LEAF: u32 = 1 << 31;
/// Where the number of a leaf's blocks less one starts, or the dimension that a node compares.
const KIND_SHIFT: u32 = 28;
const INDEX: u32 = (1 << KIND_SHIFT) - 1;

/// A point: a packet's fields.
#[derive(Clone, Copy, Debug, Default)]
pub struct Key {
    /// The dimensions; the rest is 0, so that an index of three bits is always in bounds.
    pub values: [u32; 8],
    /// TCP flags, which are no dimension.
    pub flags: u8,
}

/// A box: a rule's fields, first and last of each.
#[derive(Clone, Copy, Debug)]
pub struct RuleBox {
    /// The first of each dimension. Of protocols it is one, or all.
    pub first: [u32; DIMENSIONS],
    /// The last of each dimension.
    pub last: [u32; DIMENSIONS],
    /// Bits of the flags that must be as in `flags_value`.
    pub flags_mask: u8,
    /// See there.
    pub flags_value: u8,
    /// What a lookup answers; a lower one comes first.
    pub rule: u32,
}

/// Why a list can't be compiled.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum TooComplex {
    /// Too many rules.
    #[error("{0} rules, and a table holds {MAX_RULES}")]
    Rules(usize),
    /// Their compiled form would be too large.
    #[error("the rules overlap in too many ways: their table would take more than {} MiB", MAX_BYTES >> 20)]
    Memory,
    /// Nothing but a scan tells some of them apart.
    #[error("more than {} rules are for the same addresses, ports and protocol, and differ in their TCP flags alone", MAX_BLOCKS * LANES)]
    Flags,
    /// Packets could be chosen that cost far more than others.
    #[error("the rules are uneven: a packet could take {worst} steps, where {typical:.1} are usual")]
    Uneven {
        /// Steps of the longest way.
        worst: usize,
        /// Steps of the usual one.
        typical: f64,
    },
}

/// Sorted bounds; the last is never one, so that there is a round number to compare.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Node {
    bounds: [u32; FANOUT],
}

/// Boxes, field by field: the first of each range and how far the last is from it. The processor compares eight at once.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Block {
    /// Addresses.
    first: [[u32; LANES]; 2],
    span: [[u32; LANES]; 2],
    /// Ports.
    first_port: [[u16; LANES]; 2],
    ports: [[u16; LANES]; 2],
    /// Bits of [`Key::word`] that must be as in `value`.
    mask: [u16; LANES],
    value: [u16; LANES],
    rule: [u32; LANES],
}

const _: () = assert!(size_of::<Node>() == 64 && size_of::<Block>() == 256);

/// Matches nothing: no bit of none is set.
const NOTHING: Block = Block {
    first: [[0; LANES]; 2],
    span: [[0; LANES]; 2],
    first_port: [[0; LANES]; 2],
    ports: [[0; LANES]; 2],
    mask: [0; LANES],
    value: [1; LANES],
    rule: [NONE; LANES],
};

#[derive(Clone, Debug)]
struct Tree {
    nodes: Vec<Node>,
    children: Vec<[u32; FANOUT]>,
    blocks: Vec<Block>,
    root: u32,
}

/// The compiled list.
#[derive(Clone, Debug, Default)]
pub struct Classifier {
    trees: Vec<Tree>,
    shape: Shape,
}

/// What a lookup costs, and what the table takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shape {
    /// Trees, each of which a lookup visits.
    pub trees: usize,
    /// Nodes that a lookup visits at most, over all trees.
    pub depth: usize,
    /// Blocks that a lookup compares at most, over all trees.
    pub blocks: usize,
    /// Steps (nodes and blocks) that a lookup takes at most, over all trees.
    pub worst: usize,
    /// Steps of the usual lookup: the mean over packets in the middle of each rule.
    pub typical: f64,
    /// Bytes.
    pub bytes: usize,
}

impl Key {
    /// Protocol and flags.
    #[inline(always)]
    fn word(&self) -> u16 {
        self.values[PROTOCOL] as u16 | u16::from(self.flags) << 8
    }
}

impl Block {
    /// The first rule of the block that holds the point, or [`NONE`].
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "one index into several arrays: a lane")]
    fn first_match(&self, key: &Key) -> u32 {
        // A lane whose sign is set does not match. Signs, not conditions: a compiler keeps them in lanes, and takes conditions apart.
        let mut lanes = [0i64; LANES];
        for d in 0..2 {
            let value = key.values[d];
            for i in 0..LANES {
                lanes[i] |= i64::from(self.span[d][i]) - i64::from(value.wrapping_sub(self.first[d][i]));
            }
        }
        for d in 0..2 {
            let value = key.values[2 + d] as u16;
            for i in 0..LANES {
                lanes[i] |=
                    i64::from(self.ports[d][i]) - i64::from(value.wrapping_sub(self.first_port[d][i]));
            }
        }
        let word = key.word();
        let mut miss = [0u32; LANES];
        for i in 0..LANES {
            let differs = -i64::from(word & self.mask[i] ^ self.value[i]);
            miss[i] = ((lanes[i] | differs) >> 63) as u32 | self.rule[i];
        }
        // Rules ascend, so that the least is the first.
        miss.iter().fold(NONE, |least, rule| least.min(*rule))
    }
}

/// The first rule of a long leaf. Apart from the usual one, so that the compiler puts a block's lanes side by side, not the blocks.
#[inline(never)]
fn first_of(blocks: &[Block], key: &Key) -> u32 {
    blocks.iter().map(|block| block.first_match(key)).find(|rule| *rule != NONE).unwrap_or(NONE)
}

impl Tree {
    /// The child of node `at` that leads to a key.
    #[inline(always)]
    fn child(&self, at: u32, key: &Key) -> Option<u32> {
        let number = (at & INDEX) as usize;
        let (node, children) = (self.nodes.get(number)?, self.children.get(number)?);
        let value = key.values[(at >> KIND_SHIFT & 7) as usize];
        let below = node.bounds.map(|bound| (i64::from(value) - i64::from(bound)) >> 63);
        // A sign that is set is -1.
        let child = FANOUT as i64 + below.iter().sum::<i64>();
        Some(children[(child as usize).min(FANOUT - 1)])
    }

    #[inline(always)]
    fn lookup(&self, key: &Key) -> u32 {
        let mut at = self.root;
        while at & IS_LEAF == 0 {
            let Some(child) = self.child(at, key) else { return NONE };
            at = child;
        }
        let first = (at & INDEX) as usize;
        let blocks = self.blocks.get(first..first + blocks_of(at)).unwrap_or_default();
        match blocks {
            [block] => block.first_match(key),
            _ => first_of(blocks, key),
        }
    }

    fn bytes(&self) -> usize {
        self.nodes.len() * (size_of::<Node>() + size_of::<[u32; FANOUT]>())
            + self.blocks.len() * size_of::<Block>()
    }

    /// Nodes on the longest way from `at`.
    fn depth(&self, at: u32) -> usize {
        if at & IS_LEAF != 0 {
            return 0;
        }
        let children = self.children.get((at & INDEX) as usize);
        1 + children.into_iter().flatten().map(|child| self.depth(*child)).max().unwrap_or(0)
    }

    fn longest_leaf(&self) -> usize {
        let references = self.children.iter().flatten().chain([&self.root]);
        references.filter(|at| **at & IS_LEAF != 0).map(|at| blocks_of(*at)).max().unwrap_or(0)
    }

    /// The leaf at the end of the way that takes the most steps from `at`, and these.
    fn worst(&self, at: u32) -> (usize, u32) {
        if at & IS_LEAF != 0 {
            return (blocks_of(at), at);
        }
        let children = self.children.get((at & INDEX) as usize);
        let (steps, leaf) =
            children.into_iter().flatten().map(|child| self.worst(*child)).max().unwrap_or_default();
        (steps + 1, leaf)
    }

    /// Steps that the lookup of a key takes, a leaf counted as a whole.
    fn steps(&self, key: &Key) -> usize {
        let (mut at, mut steps) = (self.root, 0);
        while at & IS_LEAF == 0 {
            at = self.child(at, key).unwrap_or(IS_LEAF);
            steps += 1;
        }
        steps + blocks_of(at)
    }
}

/// Blocks of a leaf.
fn blocks_of(leaf: u32) -> usize {
    (leaf >> KIND_SHIFT & 7) as usize + 1
}

impl Classifier {
    /// Compiles boxes, whose `rule` numbers ascend. `limits` are the greatest values that points have; `others` are the steps that some packets
    /// take in another table instead.
    ///
    /// # Errors
    /// When there are too many, their compiled form is too large, or it is uneven.
    pub fn new(
        boxes: &[RuleBox],
        limits: [u32; DIMENSIONS],
        others: usize,
    ) -> Result<Classifier, TooComplex> {
        build::build(boxes, limits, others)
    }

    /// The lowest rule whose box holds the point, or [`NONE`].
    #[inline(always)]
    pub fn lookup(&self, key: &Key) -> u32 {
        let mut best = NONE;
        for tree in &self.trees {
            best = best.min(tree.lookup(key));
        }
        best
    }

    /// Steps that [`Classifier::lookup`] takes.
    pub fn steps(&self, key: &Key) -> usize {
        self.trees.iter().map(|tree| tree.steps(key)).sum()
    }

    /// See [`Shape`].
    pub fn shape(&self) -> Shape {
        self.shape
    }
}
