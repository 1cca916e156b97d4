//! A filter over a part: which rows match. Each term reads its own columns, only for the rows that still matter.
//!
//! First the bounds of every node are taken from the token index and the metadata; then rows between the bounds are read and tested,
//! AND narrowing from term to term. The meaning of a term is `query::evaluate`'s. Must not know what is asked about the rows.

use std::ops::Range;
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::common::cancel::Cancel;
use crate::common::error::Result;
use crate::query::Expr;
use crate::store::embedded::read::bounds::{Bounds, Rows};
use crate::store::embedded::read::part::{Part, all_rows};
use crate::store::embedded::read::term::{CompiledTerm, Source};

/// A filter made ready once for all parts.
#[derive(Clone)]
pub struct Filter {
    root: Arc<Node>,
}

enum Node {
    All,
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Term(Box<CompiledTerm>),
}

/// A node with what a part tells about it beforehand.
enum Bound<'a> {
    All,
    And(Vec<Bound<'a>>, Bounds),
    Or(Vec<Bound<'a>>, Bounds),
    Not(Box<Bound<'a>>, Bounds),
    Term(&'a CompiledTerm, Vec<Source>, Bounds),
}

/// A filter bound to a part.
pub struct PartFilter<'a> {
    part: &'a Part,
    cancel: &'a Cancel,
    root: Bound<'a>,
}

const EVERYTHING: Bounds = Bounds {
    sure: Rows::All,
    maybe: Rows::All,
};

impl Filter {
    pub fn compile(expr: &Expr) -> Result<Self> {
        Ok(Self {
            root: Arc::new(Node::compile(expr)?),
        })
    }

    /// Looks up what the part's index and metadata know.
    pub fn bind<'a>(&'a self, part: &'a Part, cancel: &'a Cancel) -> Result<PartFilter<'a>> {
        Ok(PartFilter {
            part,
            cancel,
            root: self.root.bind(part, cancel)?,
        })
    }
}

impl Node {
    fn compile(expr: &Expr) -> Result<Self> {
        let all = |children: &[Expr]| -> Result<Vec<Self>> {
            let mut nodes: Vec<Self> = children.iter().map(Self::compile).collect::<Result<_>>()?;
            nodes.sort_by_key(Self::cost);
            Ok(nodes)
        };
        Ok(match expr {
            Expr::All => Self::All,
            Expr::And(children) => Self::And(all(children)?),
            Expr::Or(children) => Self::Or(all(children)?),
            Expr::Not(child) => Self::Not(Box::new(Self::compile(child)?)),
            Expr::Term(term) => Self::Term(Box::new(CompiledTerm::new(term)?)),
        })
    }

    /// A rough guess: the cheap ones are asked first.
    fn cost(&self) -> u32 {
        match self {
            Self::All => 0,
            Self::And(children) | Self::Or(children) => children.iter().map(Self::cost).sum(),
            Self::Not(child) => child.cost(),
            Self::Term(term) => term.cost(),
        }
    }

    fn bind<'a>(&'a self, part: &Part, cancel: &Cancel) -> Result<Bound<'a>> {
        let bind_all = |children: &'a [Self]| -> Result<Vec<Bound<'a>>> {
            children
                .iter()
                .map(|child| child.bind(part, cancel))
                .collect()
        };
        Ok(match self {
            Self::All => Bound::All,
            Self::And(children) => {
                let children = bind_all(children)?;
                let bounds = children
                    .iter()
                    .fold(EVERYTHING, |bounds, child| bounds.and(child.bounds()));
                Bound::And(children, bounds)
            }
            Self::Or(children) => {
                let children = bind_all(children)?;
                let nothing = Bounds::exact(Rows::None);
                let bounds = children
                    .iter()
                    .fold(nothing, |bounds, child| bounds.or(child.bounds()));
                Bound::Or(children, bounds)
            }
            Self::Not(child) => {
                let child = child.bind(part, cancel)?;
                let bounds = child.bounds().clone().not(part.n_rows());
                Bound::Not(Box::new(child), bounds)
            }
            Self::Term(term) => {
                cancel.check()?;
                let sources = term.sources(part.columns());
                let bounds = term.bounds(part, &sources)?;
                Bound::Term(term, sources, bounds)
            }
        })
    }
}

impl Bound<'_> {
    fn bounds(&self) -> &Bounds {
        match self {
            Self::All => &EVERYTHING,
            Self::And(_, bounds)
            | Self::Or(_, bounds)
            | Self::Not(_, bounds)
            | Self::Term(_, _, bounds) => bounds,
        }
    }
}

impl PartFilter<'_> {
    pub fn bounds(&self) -> &Bounds {
        self.root.bounds()
    }

    /// True if the bounds answer for all of these rows.
    pub fn is_exact(&self, rows: Range<u32>) -> bool {
        let bounds = self.bounds();
        bounds.sure == bounds.maybe || {
            bounds.sure.in_range(rows.clone()) == bounds.maybe.in_range(rows)
        }
    }

    /// The rows among these that match.
    pub fn matching(&self, rows: Range<u32>) -> Result<RoaringBitmap> {
        self.matching_node(&self.root, &all_rows(rows))
    }

    /// The rows among these that match.
    pub fn matching_among(&self, rows: &RoaringBitmap) -> Result<RoaringBitmap> {
        self.matching_node(&self.root, rows)
    }

    fn matching_node(&self, node: &Bound<'_>, rows: &RoaringBitmap) -> Result<RoaringBitmap> {
        let bounds = node.bounds();
        let sure = bounds.sure.within(rows);
        let mut open = bounds.maybe.within(rows);
        open -= &sure;
        if open.is_empty() {
            return Ok(sure);
        }
        let tested = match node {
            Bound::All => open,
            Bound::And(children, _) => {
                for child in children {
                    if open.is_empty() {
                        break;
                    }
                    open = self.matching_node(child, &open)?;
                }
                open
            }
            Bound::Or(children, _) => {
                let mut found = RoaringBitmap::new();
                for child in children {
                    if open.is_empty() {
                        break;
                    }
                    let more = self.matching_node(child, &open)?;
                    open -= &more;
                    found |= more;
                }
                found
            }
            Bound::Not(child, _) => {
                let matched = self.matching_node(child, &open)?;
                open - matched
            }
            Bound::Term(term, sources, _) => {
                term.test_rows(self.part, sources, open, self.cancel)?
            }
        };
        Ok(sure | tested)
    }
}
