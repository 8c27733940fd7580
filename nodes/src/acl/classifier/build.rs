//! How a list is compiled.

use super::{
    Block, Classifier, DIMENSIONS, FANOUT, INDEX, IS_LEAF, KIND_SHIFT, Key, LANES, LEAF, MAX_BLOCKS,
    MAX_BYTES, MAX_RULES, MAX_TREES, MAX_UNEVEN, NONE, NOTHING, Node, PROTOCOL, RuleBox, Shape, TooComplex,
    Tree, blocks_of,
};
use std::collections::HashMap;

/// Boxes whose packets are tried, to know what is usual.
const PROBES: usize = 1024;

/// The boxes of a tree, and the tree.
struct Part {
    group: Vec<u32>,
    tree: Tree,
}

/// See [`Classifier::new`].
pub(super) fn build(
    boxes: &[RuleBox],
    limits: [u32; DIMENSIONS],
    others: usize,
) -> Result<Classifier, TooComplex> {
    if boxes.len() > MAX_RULES {
        return Err(TooComplex::Rules(boxes.len()));
    }
    let mut parts = small_trees(boxes, &limits)?;
    let mut shape = shape(boxes, &parts);
    while shape.worst.max(others) as f64 > MAX_UNEVEN * shape.typical {
        let uneven = TooComplex::Uneven { worst: shape.worst.max(others), typical: shape.typical };
        even_out(boxes, &limits, &mut parts).ok_or(uneven)?;
        shape = self::shape(boxes, &parts);
    }
    if shape.bytes > MAX_BYTES {
        return Err(TooComplex::Memory);
    }
    Ok(Classifier { trees: parts.into_iter().map(|part| part.tree).collect(), shape })
}

/// As few trees as stay small.
fn small_trees(boxes: &[RuleBox], limits: &[u32; DIMENSIONS]) -> Result<Vec<Part>, TooComplex> {
    let mut groups: Vec<Vec<u32>> = vec![(0..boxes.len() as u32).collect()];
    let mut parts = Vec::new();
    while let Some(group) = groups.pop() {
        let mut refused = match Builder::build(boxes, &group, limits, LEAF) {
            Ok(tree) => {
                parts.push(Part { group, tree });
                continue;
            }
            Err(refused) => refused,
        };
        if parts.len() + groups.len() + 2 <= MAX_TREES
            && let Some(two) = part(boxes, &group, limits)
        {
            groups.extend(two);
            continue;
        }
        let longer = (1..).map(|n| LEAF << n).take_while(|leaf| *leaf <= MAX_BLOCKS * LANES);
        let tree = longer.into_iter().find_map(|leaf| {
            Builder::build(boxes, &group, limits, leaf).map_err(|error| refused = error).ok()
        });
        parts.push(Part { tree: tree.ok_or(refused)?, group });
    }
    Ok(parts)
}

/// Takes the boxes at the end of the longest way out of their tree, into one that is a scan: all packets then pay for them alike.
fn even_out(boxes: &[RuleBox], limits: &[u32; DIMENSIONS], parts: &mut Vec<Part>) -> Option<()> {
    if parts.len() == MAX_TREES {
        return None;
    }
    let part = parts.iter_mut().max_by_key(|part| part.tree.worst(part.tree.root).0)?;
    let (_, leaf) = part.tree.worst(part.tree.root);
    let first = (leaf & INDEX) as usize;
    let blocks = part.tree.blocks.get(first..first + blocks_of(leaf))?;
    let rules: Vec<u32> = blocks.iter().flat_map(|block| block.rule).filter(|rule| *rule != NONE).collect();
    let is_there = |i: &u32| boxes.get(*i as usize).is_some_and(|b| rules.contains(&b.rule));
    let (deep, rest): (Vec<u32>, Vec<u32>) = part.group.iter().partition(|i| is_there(i));
    if rest.is_empty() {
        return None;
    }
    let tree = Builder::build(boxes, &rest, limits, LEAF).ok()?;
    *part = Part { group: rest, tree };
    let tree = Builder::build(boxes, &deep, limits, MAX_BLOCKS * LANES).ok()?;
    parts.push(Part { group: deep, tree });
    Some(())
}

fn shape(boxes: &[RuleBox], parts: &[Part]) -> Shape {
    let sum = |of: fn(&Tree) -> usize| parts.iter().map(|part| of(&part.tree)).sum();
    let probes = boxes.iter().step_by(boxes.len().div_ceil(PROBES).max(1));
    let (mut steps, mut count) = (0, 0);
    for b in probes {
        let mut key = Key { flags: b.flags_value, ..Key::default() };
        for (d, value) in key.values.iter_mut().enumerate().take(DIMENSIONS) {
            *value = b.first[d] + (b.last[d] - b.first[d]) / 2;
        }
        steps += parts.iter().map(|part| part.tree.steps(&key)).sum::<usize>();
        count += 1;
    }
    let worst = sum(|t| t.worst(t.root).0);
    Shape {
        trees: parts.len(),
        depth: sum(|t| t.depth(t.root)),
        blocks: sum(Tree::longest_leaf),
        worst,
        typical: if count == 0 { worst as f64 } else { f64::from(steps as u32) / f64::from(count) },
        bytes: sum(Tree::bytes),
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
    fn build(
        boxes: &'a [RuleBox],
        group: &[u32],
        limits: &[u32; DIMENSIONS],
        leaf: usize,
    ) -> Result<Tree, TooComplex> {
        let mut builder = Builder {
            boxes,
            leaf,
            tree: Tree { nodes: Vec::new(), children: Vec::new(), blocks: Vec::new(), root: 0 },
            known: HashMap::new(),
            max_nodes: group.len() + 256,
            max_blocks: 2 * group.len() + 1024,
        };
        let cell = Cell { first: [0; DIMENSIONS], last: *limits };
        builder.tree.root = builder.grow(group.to_vec(), cell)?;
        Ok(builder.tree)
    }

    /// A node or leaf for the boxes `list` in `cell`.
    fn grow(&mut self, mut list: Vec<u32>, cell: Cell) -> Result<u32, TooComplex> {
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
            return Err(TooComplex::Memory);
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
        Ok((d as u32) << KIND_SHIFT | number as u32)
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

    fn leaf(&mut self, list: Vec<u32>) -> Result<u32, TooComplex> {
        if let Some(known) = self.known.get(&list) {
            return Ok(*known);
        }
        let count = list.len().div_ceil(LANES).max(1);
        if count > MAX_BLOCKS {
            return Err(TooComplex::Flags);
        }
        if self.tree.blocks.len() + count > self.max_blocks {
            return Err(TooComplex::Memory);
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
        Ok(reference)
    }
}

impl Block {
    fn set(&mut self, lane: usize, b: &RuleBox) {
        for d in 0..2 {
            self.first[d][lane] = b.first[d];
            self.span[d][lane] = b.last[d] - b.first[d];
            self.first_port[d][lane] = b.first[2 + d] as u16;
            self.ports[d][lane] = (b.last[2 + d] - b.first[2 + d]) as u16;
        }
        let protocol = if b.first[PROTOCOL] == b.last[PROTOCOL] { 0xff } else { 0 };
        self.mask[lane] = protocol | u16::from(b.flags_mask) << 8;
        self.value[lane] = b.first[PROTOCOL] as u16 & protocol | u16::from(b.flags_value) << 8;
        self.rule[lane] = b.rule;
    }
}
