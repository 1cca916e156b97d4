//! The field keys of a batch as a tree of path segments, so that a key met before costs one comparison: each node remembers which node
//! followed it last time, and records of one program repeat their order.
//!
//! Limits: forgotten between records once it holds [`NODES_MAX`] nodes or [`BYTES_MAX`] bytes of names.

use hashbrown::HashTable;

use crate::record::aliases::{Aliases, StandardField};
use crate::record::key::{address, push_segment};
use crate::record::{BatchBuilder, FLAGS};

pub(super) type NodeId = u32;

/// The record itself: the parent of its top fields.
pub(super) const ROOT: NodeId = 0;

const NODES_MAX: usize = 16_384;
const BYTES_MAX: usize = 4 << 20;

/// A key that means a standard field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Role {
    pub standard: StandardField,
    /// Lower wins. 0 is the standard name itself.
    pub rank: u16,
}

pub(super) struct KeyTree {
    nodes: Vec<Node>,
    lookup: HashTable<NodeId>,
    hasher: ahash::RandomState,
    aliases: Aliases,
    /// Bytes of all names.
    size_bytes: usize,
    /// Counts batches: a `key_index` is good for the batch it was made in.
    batch: u32,
    /// Counts records: a node's `record` tells that its key was met in this one.
    record: u64,
    /// The node met last.
    last: NodeId,
    path: String,
}

struct Node {
    parent: NodeId,
    segment: Box<str>,
    key: Box<str>,
    role: Option<Role>,
    key_index: u32,
    batch: u32,
    record: u64,
    /// The node that followed this one last time.
    next: NodeId,
}

impl KeyTree {
    pub fn new(aliases: &Aliases) -> Self {
        let mut tree = Self {
            nodes: Vec::new(),
            lookup: HashTable::new(),
            hasher: ahash::RandomState::new(),
            aliases: aliases.clone(),
            size_bytes: 0,
            batch: 1,
            record: 0,
            last: ROOT,
            path: String::new(),
        };
        tree.forget();
        tree
    }

    fn forget(&mut self) {
        self.nodes.clear();
        self.lookup.clear();
        self.size_bytes = 0;
        self.nodes.push(Node {
            parent: NodeId::MAX,
            segment: "".into(),
            key: "".into(),
            role: None,
            key_index: 0,
            batch: 0,
            record: 0,
            next: ROOT,
        });
    }

    pub fn begin_batch(&mut self) {
        self.batch = self.batch.wrapping_add(1).max(1);
        if self.batch == 1 {
            self.forget();
        }
    }

    pub fn begin_record(&mut self) {
        if NODES_MAX < self.nodes.len() || BYTES_MAX < self.size_bytes {
            self.forget();
        }
        self.record += 1;
        self.last = ROOT;
    }

    /// The node of `segment` under `parent`.
    #[inline]
    pub fn child(&mut self, parent: NodeId, segment: &str) -> NodeId {
        let guess = self
            .nodes
            .get(self.last as usize)
            .map_or(ROOT, |node| node.next);
        if let Some(node) = self.nodes.get(guess as usize)
            && node.parent == parent
            && is_same(node.segment.as_bytes(), segment.as_bytes())
        {
            self.last = guess;
            return guess;
        }
        let found = self.find(parent, segment);
        if let Some(last) = self.nodes.get_mut(self.last as usize) {
            last.next = found;
        }
        self.last = found;
        found
    }

    fn find(&mut self, parent: NodeId, segment: &str) -> NodeId {
        let hash = self.hasher.hash_one((parent, segment));
        let nodes = &self.nodes;
        let is_it = |id: &NodeId| {
            nodes
                .get(*id as usize)
                .is_some_and(|node| node.parent == parent && *node.segment == *segment)
        };
        if let Some(id) = self.lookup.find(hash, is_it) {
            return *id;
        }
        self.add(parent, segment, hash)
    }

    fn add(&mut self, parent: NodeId, segment: &str, hash: u64) -> NodeId {
        let parent_key = self.nodes.get(parent as usize).map_or("", |node| &node.key);
        self.path.clear();
        self.path.push_str(parent_key);
        push_segment(&mut self.path, segment, parent == ROOT);
        let key: Box<str> = self.path.as_str().into();
        let role = self.role_of(&key);
        let id = NodeId::try_from(self.nodes.len()).unwrap_or(ROOT);
        self.size_bytes += segment.len() + key.len();
        self.nodes.push(Node {
            parent,
            segment: segment.into(),
            key,
            role,
            key_index: 0,
            batch: 0,
            record: 0,
            next: ROOT,
        });
        let (nodes, hasher) = (&self.nodes, &self.hasher);
        self.lookup.insert_unique(hash, id, |id| {
            nodes
                .get(*id as usize)
                .map_or(0, |node| hasher.hash_one((node.parent, &*node.segment)))
        });
        id
    }

    fn role_of(&self, key: &str) -> Option<Role> {
        let (standard, rank) = self.aliases.standard(&address(key))?;
        // `Level` means `level` too, but `level` itself comes first.
        let is_inexact = u16::from(rank == 0 && key != standard.name());
        let rank = u16::try_from(rank).unwrap_or(u16::MAX - 1);
        let rank = if rank == 0 { is_inexact } else { rank + 1 };
        Some(Role { standard, rank })
    }

    /// Marks the key as met in this record; false if it was already.
    #[inline]
    pub fn mark(&mut self, node: NodeId) -> bool {
        let record = self.record;
        self.nodes.get_mut(node as usize).is_some_and(|node| {
            let is_new = node.record != record;
            node.record = record;
            is_new
        })
    }

    #[inline]
    pub fn role(&self, node: NodeId) -> Option<Role> {
        self.nodes.get(node as usize).and_then(|node| node.role)
    }

    /// True for the name under which the queue's JSON shows a record's flags.
    pub fn is_flags(&self, node: NodeId) -> bool {
        self.nodes
            .get(node as usize)
            .is_some_and(|node| &*node.key == FLAGS)
    }

    /// The key's index in the batch being built.
    #[inline]
    pub fn key_index(&mut self, node: NodeId, builder: &mut BatchBuilder) -> u32 {
        let batch = self.batch;
        let Some(node) = self.nodes.get_mut(node as usize) else {
            return 0;
        };
        if node.batch != batch {
            node.key_index = builder.key_index(&node.key);
            node.batch = batch;
        }
        node.key_index
    }
}

/// Equality without a call for the lengths that names have.
#[inline]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    // Two windows that overlap cover everything between.
    if let (Some(a8), Some(b8)) = (a.first_chunk::<8>(), b.first_chunk::<8>()) {
        return if a.len() <= 16 {
            a8 == b8 && a.last_chunk::<8>() == b.last_chunk::<8>()
        } else {
            a == b
        };
    }
    match (a.first_chunk::<4>(), b.first_chunk::<4>()) {
        (Some(a4), Some(b4)) => a4 == b4 && a.last_chunk::<4>() == b.last_chunk::<4>(),
        _ => a.iter().eq(b),
    }
}
