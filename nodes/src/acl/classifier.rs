//! A compiled list: the first of up to [`MAX_RULES`] boxes in five dimensions that holds a point.
//!
//! The boxes are sorted into a few trees. A node of a tree is one cache line: up to 15 sorted bounds in one dimension, which are compared
//! at once and give one of 16 children, so that 10,000 rules are three or four steps away. A leaf is a block of eight boxes that are
//! compared at once, all of them always. What a lookup costs is so the number of trees, their depth and the length of their
//! leaves: properties of the rules, not of the packets that somebody may choose. A hash of masks (tuple space search) has no such bound.
//!
//! Boxes that would be cut by too many nodes (sources said here, ports said there) are kept apart in trees of their own, at most
//! [`MAX_TREES`]. A list for which that is not enough within the limits of memory is refused.

use std::collections::HashMap;

/// Dimensions: source, destination, source port, destination port, protocol.
pub const DIMENSIONS: usize = 5;
/// Dimensions in which a box may be any range; in the last, it is one protocol or all.
const RANGES: usize = 4;
/// The dimension of protocols.
const PROTOCOL: usize = 4;
/// Rules of a table at most.
pub const MAX_RULES: usize = 65_536;
/// Trees of a table at most.
pub const MAX_TREES: usize = 8;
/// Bytes of a table at most.
pub const MAX_BYTES: usize = 64 << 20;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooComplex {
    /// Too many rules.
    #[error("{0} rules, and a table holds {MAX_RULES}")]
    Rules(usize),
    /// Their compiled form would be too large.
    #[error("the rules overlap in too many ways: their table would take more than {} MiB", MAX_BYTES >> 20)]
    Memory,
}

/// Sorted bounds; the last is never one, so that there is a round number to compare.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Node {
    bounds: [u32; FANOUT],
}

/// Boxes, field by field: the first of each range and how far the last is from it. All are of one width, so that the processor compares eight at once.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Block {
    first: [[u32; LANES]; RANGES],
    span: [[u32; LANES]; RANGES],
    /// Bits of [`Key::word`] that must be as in `value`.
    mask: [u32; LANES],
    value: [u32; LANES],
    rule: [u32; LANES],
}

const _: () = assert!(size_of::<Node>() == 64 && size_of::<Block>() == 384);

/// Matches nothing: no bit of none is set.
const NOTHING: Block = Block {
    first: [[0; LANES]; RANGES],
    span: [[0; LANES]; RANGES],
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
}

/// What a lookup costs at most, and what the table takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Trees, each of which a lookup visits.
    pub trees: usize,
    /// Nodes that a lookup visits at most, over all trees.
    pub depth: usize,
    /// Blocks that a lookup compares at most, over all trees.
    pub blocks: usize,
    /// Bytes.
    pub bytes: usize,
}

impl Key {
    /// Protocol and flags.
    #[inline(always)]
    fn word(&self) -> u32 {
        self.values[PROTOCOL] | u32::from(self.flags) << 8
    }
}

impl Block {
    /// The first rule of the block that holds the point, or [`NONE`].
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "one index into several arrays: a lane")]
    fn first_match(&self, key: &Key) -> u32 {
        // A lane whose sign is set does not match. Signs, not conditions: a compiler keeps them in lanes, and takes conditions apart.
        let mut lanes = [0i64; LANES];
        for d in 0..RANGES {
            let value = key.values[d];
            for i in 0..LANES {
                lanes[i] |= i64::from(self.span[d][i]) - i64::from(value.wrapping_sub(self.first[d][i]));
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
    #[inline(always)]
    fn lookup(&self, key: &Key) -> u32 {
        let mut at = self.root;
        while at & IS_LEAF == 0 {
            let (Some(node), Some(children)) =
                (self.nodes.get((at & INDEX) as usize), self.children.get((at & INDEX) as usize))
            else {
                return NONE;
            };
            let value = key.values[(at >> KIND_SHIFT & 7) as usize];
            let below = node.bounds.map(|bound| (i64::from(value) - i64::from(bound)) >> 63);
            // A sign that is set is -1.
            let child = FANOUT as i64 + below.iter().sum::<i64>();
            at = children[(child as usize).min(FANOUT - 1)];
        }
        let first = (at & INDEX) as usize;
        let count = (at >> KIND_SHIFT & 7) as usize + 1;
        let blocks = self.blocks.get(first..first + count).unwrap_or_default();
        match blocks {
            [block] => block.first_match(key),
            _ => first_of(blocks, key),
        }
    }

    fn bytes(&self) -> usize {
        self.nodes.len() * (size_of::<Node>() + size_of::<[u32; FANOUT]>())
            + self.blocks.len() * size_of::<Block>()
    }

    fn depth(&self, at: u32) -> usize {
        if at & IS_LEAF != 0 {
            return 0;
        }
        let children = self.children.get((at & INDEX) as usize);
        1 + children.into_iter().flatten().map(|child| self.depth(*child)).max().unwrap_or(0)
    }

    fn longest_leaf(&self) -> usize {
        let references = self.children.iter().flatten().chain([&self.root]);
        let leaves = references.filter(|at| **at & IS_LEAF != 0);
        leaves.map(|at| (at >> KIND_SHIFT & 7) as usize + 1).max().unwrap_or(0)
    }
}

impl Classifier {
    /// Compiles boxes, whose `rule` numbers ascend. `limits` are the greatest values that points have.
    ///
    /// # Errors
    /// When there are too many, or their compiled form is too large.
    pub fn new(boxes: &[RuleBox], limits: [u32; DIMENSIONS]) -> Result<Classifier, TooComplex> {
        if boxes.len() > MAX_RULES {
            return Err(TooComplex::Rules(boxes.len()));
        }
        let all: Vec<u32> = (0..boxes.len() as u32).collect();
        let mut groups = vec![all];
        let mut trees: Vec<Tree> = Vec::new();
        while let Some(group) = groups.pop() {
            if let Some(tree) = Builder::build(boxes, &group, limits, LEAF) {
                trees.push(tree);
                continue;
            }
            if trees.len() + groups.len() + 2 <= MAX_TREES
                && let Some(parts) = part(boxes, &group, &limits)
            {
                groups.extend(parts);
                continue;
            }
            let longer = (1..).map(|n| LEAF << n).take_while(|leaf| *leaf <= MAX_BLOCKS * LANES);
            let tree = longer.into_iter().find_map(|leaf| Builder::build(boxes, &group, limits, leaf));
            trees.push(tree.ok_or(TooComplex::Memory)?);
        }
        let classifier = Classifier { trees };
        if classifier.shape().bytes > MAX_BYTES {
            return Err(TooComplex::Memory);
        }
        Ok(classifier)
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

    /// See [`Shape`].
    pub fn shape(&self) -> Shape {
        let sum = |of: fn(&Tree) -> usize| self.trees.iter().map(of).sum();
        Shape {
            trees: self.trees.len(),
            depth: sum(|t| t.depth(t.root)),
            blocks: sum(Tree::longest_leaf),
            bytes: sum(Tree::bytes),
        }
    }
}

/// Parts a group whose tree would be too large: by whether a dimension is wide, the one that parts it most evenly.
fn part(boxes: &[RuleBox], group: &[u32], limits: &[u32; DIMENSIONS]) -> Option<[Vec<u32>; 2]> {
    let is_wide = |d: usize, i: &u32| {
        let b = &boxes[*i as usize];
        b.last[d] - b.first[d] > limits[d] / FANOUT as u32
    };
    let wide = |d: usize| group.iter().filter(|i| is_wide(d, i)).count();
    let smaller = |d: usize| wide(d).min(group.len() - wide(d));
    let best = (0..DIMENSIONS).max_by_key(|d| smaller(*d)).filter(|d| smaller(*d) != 0)?;
    let (a, b) = group.iter().partition(|i| is_wide(best, i));
    Some([a, b])
}

/// One of a node's dimensions, and how well it parts the node's boxes.
struct Cut {
    dimension: usize,
    bounds: Vec<u32>,
    cost: u64,
}

struct Builder<'a> {
    boxes: &'a [RuleBox],
    leaf: usize,
    tree: Tree,
    /// Leaves of the same boxes are one.
    known: HashMap<Vec<u32>, u32>,
    max_nodes: usize,
    max_blocks: usize,
}

/// A part of the space, first and last of each dimension.
#[derive(Clone, Copy)]
struct Cell {
    first: [u32; DIMENSIONS],
    last: [u32; DIMENSIONS],
}

impl<'a> Builder<'a> {
    /// A tree of the boxes `group`, if it stays small.
    fn build(boxes: &'a [RuleBox], group: &[u32], limits: [u32; DIMENSIONS], leaf: usize) -> Option<Tree> {
        let mut builder = Builder {
            boxes,
            leaf,
            tree: Tree { nodes: Vec::new(), children: Vec::new(), blocks: Vec::new(), root: 0 },
            known: HashMap::new(),
            max_nodes: group.len() + 256,
            max_blocks: 2 * group.len() + 1024,
        };
        let cell = Cell { first: [0; DIMENSIONS], last: limits };
        builder.tree.root = builder.grow(group.to_vec(), cell)?;
        Some(builder.tree)
    }

    /// A node or leaf for the boxes `list` in `cell`.
    fn grow(&mut self, mut list: Vec<u32>, cell: Cell) -> Option<u32> {
        let covers = |b: &RuleBox| {
            let holds = |d: usize| b.first[d] <= cell.first[d] && b.last[d] >= cell.last[d];
            b.flags_mask == 0 && (0..DIMENSIONS).all(holds)
        };
        // Nothing behind a box that fills the cell is ever reached.
        if let Some(at) = list.iter().position(|i| covers(&self.boxes[*i as usize])) {
            list.truncate(at + 1);
        }
        if list.len() <= self.leaf {
            return self.leaf(list);
        }
        let cuts = (0..DIMENSIONS).filter_map(|d| self.cut(&list, &cell, d));
        let Some(cut) = cuts.min_by_key(|cut| cut.cost) else { return self.leaf(list) };
        if self.tree.nodes.len() == self.max_nodes {
            return None;
        }
        let mut node = Node { bounds: [u32::MAX; FANOUT] };
        node.bounds.iter_mut().zip(&cut.bounds).for_each(|(to, bound)| *to = *bound);
        let number = self.tree.nodes.len();
        self.tree.nodes.push(node);
        self.tree.children.push([0; FANOUT]);
        let d = cut.dimension;
        let mut children = [0; FANOUT];
        let mut last_child = 0;
        for (k, child) in children.iter_mut().enumerate().take(cut.bounds.len() + 1) {
            let mut inner = cell;
            if k > 0 {
                inner.first[d] = cut.bounds[k - 1];
            }
            if let Some(bound) = cut.bounds.get(k) {
                inner.last[d] = bound - 1;
            }
            let meets = |i: &&u32| {
                let b = &self.boxes[**i as usize];
                b.first[d] <= inner.last[d] && b.last[d] >= inner.first[d]
            };
            let part = list.iter().filter(meets).copied().collect();
            last_child = self.grow(part, inner)?;
            *child = last_child;
        }
        // The greatest value there is counts the unused bounds too.
        children[cut.bounds.len() + 1..].fill(last_child);
        self.tree.children[number] = children;
        Some((d as u32) << KIND_SHIFT | number as u32)
    }

    /// How dimension `d` would part the boxes: at the quantiles of their ends.
    fn cut(&self, list: &[u32], cell: &Cell, d: usize) -> Option<Cut> {
        let mut ends: Vec<u32> = Vec::with_capacity(2 * list.len());
        for i in list {
            let b = &self.boxes[*i as usize];
            if b.first[d] > cell.first[d] {
                ends.push(b.first[d]);
            }
            if b.last[d] < cell.last[d] {
                ends.push(b.last[d] + 1);
            }
        }
        if ends.is_empty() {
            return None;
        }
        ends.sort_unstable();
        let wanted = (2 * list.len()).div_ceil(self.leaf).clamp(2, FANOUT);
        let mut bounds: Vec<u32> = (1..wanted).map(|k| ends[k * ends.len() / wanted]).collect();
        bounds.dedup();
        let mut count = [0i64; FANOUT + 1];
        for i in list {
            let b = &self.boxes[*i as usize];
            let place = |value: u32| bounds.partition_point(|bound| *bound <= value);
            count[place(b.first[d])] += 1;
            count[place(b.last[d]) + 1] -= 1;
        }
        let (mut inside, mut total, mut max) = (0, 0, 0);
        for change in &count[..=bounds.len()] {
            inside += change;
            total += inside;
            max = max.max(inside);
        }
        Some(Cut { dimension: d, bounds, cost: total as u64 * max as u64 })
    }

    fn leaf(&mut self, list: Vec<u32>) -> Option<u32> {
        if let Some(known) = self.known.get(&list) {
            return Some(*known);
        }
        let count = list.len().div_ceil(LANES).max(1);
        if count > MAX_BLOCKS || self.tree.blocks.len() + count > self.max_blocks {
            return None;
        }
        let reference = IS_LEAF | (count as u32 - 1) << KIND_SHIFT | self.tree.blocks.len() as u32;
        for k in 0..count {
            let mut block = NOTHING;
            for (lane, i) in list.iter().skip(k * LANES).take(LANES).enumerate() {
                block.set(lane, &self.boxes[*i as usize]);
            }
            self.tree.blocks.push(block);
        }
        self.known.insert(list, reference);
        Some(reference)
    }
}

impl Block {
    fn set(&mut self, lane: usize, b: &RuleBox) {
        for d in 0..RANGES {
            self.first[d][lane] = b.first[d];
            self.span[d][lane] = b.last[d] - b.first[d];
        }
        let protocol = if b.first[PROTOCOL] == b.last[PROTOCOL] { 0xff } else { 0 };
        self.mask[lane] = protocol | u32::from(b.flags_mask) << 8;
        self.value[lane] = b.first[PROTOCOL] & protocol | u32::from(b.flags_value) << 8;
        self.rule[lane] = b.rule;
    }
}
