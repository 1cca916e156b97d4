//! The fast reader: simd-json's tape, walked side by side with the positions of the structural characters that it found, so that every
//! node is also a place in the untouched line. Allocates nothing once its buffers have grown.
//!
//! It answers "not taken" for everything unusual, and leaves no trace then.

use simd_json::{Buffers, INPUT_PADDING, Node, StaticNode, Tape, fill_tape_padded};

use crate::record::value::Flags;
use crate::record::{BatchBuilder, ValueRef};
use crate::wire::json::JsonOptions;
use crate::wire::json::assemble::{Assembler, Given, RecordDefaults};
use crate::wire::json::keys::{KeyTree, NodeId, ROOT};
use crate::wire::json::number;

pub(super) struct FastReader {
    scratch: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
    compact: String,
}

impl Default for FastReader {
    fn default() -> Self {
        Self {
            scratch: Vec::new(),
            buffers: Buffers::default(),
            tape: Tape(Vec::new()),
            compact: String::new(),
        }
    }
}

/// Buffers larger than this are not kept for the next line.
const SCRATCH_KEPT_BYTES: usize = 4 << 20;

impl FastReader {
    /// True if `text` was one JSON object and its record was appended.
    pub fn object(
        &mut self,
        text: &str,
        keys: &mut KeyTree,
        builder: &mut BatchBuilder,
        defaults: &RecordDefaults<'_>,
        options: &JsonOptions,
        given: Given,
    ) -> bool {
        // simd-json writes unescaped strings into what it reads, so it reads a copy.
        self.scratch.clear();
        self.scratch.extend_from_slice(text.as_bytes());
        self.scratch.resize(text.len() + INPUT_PADDING, b' ');
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let parsed = fill_tape_padded(&mut self.scratch, text.len(), &mut self.buffers, &mut tape);
        let mut is_taken = false;
        if parsed.is_ok()
            && let Some(Node::Object { len, .. }) = tape.0.first()
        {
            let mut walk = Walk {
                nodes: &tape.0,
                at: 1,
                structurals: self.buffers.structural_indexes(),
                structural: 0,
                text,
                depth_max: options.depth_max,
                compact: &mut self.compact,
                record: Assembler::begin(keys, builder, defaults, options, given),
            };
            is_taken = walk.object(ROOT, *len, 1).is_some();
            if is_taken {
                walk.record.finish();
            } else {
                builder.abandon_record();
            }
        }
        self.tape = tape.reset();
        if SCRATCH_KEPT_BYTES < self.scratch.capacity() {
            *self = Self::default();
        }
        is_taken
    }
}

struct Walk<'w, 'v> {
    nodes: &'w [Node<'v>],
    at: usize,
    structurals: &'w [u32],
    /// Index of the structural character that the node at `at` begins with.
    structural: usize,
    text: &'v str,
    depth_max: usize,
    compact: &'w mut String,
    record: Assembler<'w, 'v>,
}

impl<'v> Walk<'_, 'v> {
    /// The fields of an object whose node was just passed and whose `{` is the current structural. `None` gives the line up.
    fn object(&mut self, parent: NodeId, len: usize, depth: usize) -> Option<()> {
        self.structural += 1;
        for _ in 0..len {
            let Some(Node::String(key)) = self.nodes.get(self.at) else {
                return None;
            };
            self.at += 1;
            // The key's quote and its colon.
            self.structural += 2;
            let node = self.record.keys.child(parent, key);
            if !self.record.is_new(node) {
                return None;
            }
            self.value(node, depth)?;
            // The comma, or the brace at the end.
            self.structural += 1;
        }
        if len == 0 {
            self.structural += 1;
        }
        Some(())
    }

    #[inline]
    fn value(&mut self, key: NodeId, depth: usize) -> Option<()> {
        let node = *self.nodes.get(self.at)?;
        match node {
            Node::String(text) => {
                self.record.leaf(key, ValueRef::Str(text), "");
                self.one();
            }
            Node::Static(value) => {
                self.scalar(key, value)?;
                self.one();
            }
            Node::Object { len, .. } if 0 < len && depth < self.depth_max => {
                self.at += 1;
                self.object(key, len, depth + 1)?;
            }
            Node::Object { len, .. } => {
                if 0 < len {
                    self.record.flag(Flags::DEEP_JSON);
                }
                self.text_of(key)?;
            }
            Node::Array { .. } => self.text_of(key)?,
        }
        Some(())
    }

    #[inline]
    fn one(&mut self) {
        self.at += 1;
        self.structural += 1;
    }

    #[inline]
    fn scalar(&mut self, key: NodeId, value: StaticNode) -> Option<()> {
        match value {
            StaticNode::Null => self.record.leaf(key, ValueRef::Null, ""),
            StaticNode::Bool(value) => self.record.leaf(key, ValueRef::Bool(value), ""),
            StaticNode::I64(integer) => {
                let text = self.number_text()?;
                let value = if integer == 0 && text != "0" {
                    ValueRef::Number(text)
                } else {
                    ValueRef::Int(integer)
                };
                self.record.leaf(key, value, text);
            }
            StaticNode::U64(_) => {
                let text = self.number_text()?;
                self.record.leaf(key, number::value_of(text), text);
            }
            StaticNode::F64(float) => {
                let text = self.number_text()?;
                let value = number::float_value(text, float);
                self.record.leaf(key, value, text);
            }
        }
        Some(())
    }

    fn number_text(&self) -> Option<&'v str> {
        let start = *self.structurals.get(self.structural)? as usize;
        let rest = self.text.as_bytes().get(start..)?;
        let len = rest
            .iter()
            .take_while(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
            .count();
        self.text.get(start..start + len)
    }

    /// Keeps an array, an empty or a too deep object as its text, and goes behind it.
    fn text_of(&mut self, key: NodeId) -> Option<()> {
        let start = *self.structurals.get(self.structural)? as usize;
        let mut pending = 1_usize;
        while 0 < pending {
            pending -= 1;
            let inside = match self.nodes.get(self.at)? {
                Node::Array { len, .. } => {
                    self.structural += 2 + len.saturating_sub(1);
                    *len
                }
                Node::Object { len, .. } => {
                    self.structural += 2 + len + len.saturating_sub(1);
                    len * 2
                }
                Node::String(_) | Node::Static(_) => {
                    self.structural += 1;
                    0
                }
            };
            pending += inside;
            self.at += 1;
        }
        let end = *self.structurals.get(self.structural - 1)? as usize;
        let text = self.text.get(start..=end)?;
        if text
            .bytes()
            .any(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r'))
        {
            self.compact.clear();
            compact_into(text, self.compact);
            self.record.json(key, self.compact);
        } else {
            self.record.json(key, text);
        }
        Some(())
    }
}

/// Appends valid JSON without the white space between its tokens.
fn compact_into(text: &str, out: &mut String) {
    let mut rest = text;
    while let Some(quote) = rest.find('"') {
        let (outside, string) = rest.split_at(quote);
        out.extend(outside.split_ascii_whitespace());
        let bytes = string.as_bytes();
        let mut end = 1;
        while let Some(stop) = bytes
            .get(end..)
            .and_then(|tail| memchr::memchr2(b'"', b'\\', tail))
        {
            end += stop + 1;
            if bytes.get(end - 1) == Some(&b'"') {
                break;
            }
            end += 1;
        }
        let (string, tail) = string.split_at_checked(end).unwrap_or((string, ""));
        out.push_str(string);
        rest = tail;
    }
    out.extend(rest.split_ascii_whitespace());
}
