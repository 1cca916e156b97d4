//! The one internal shape of a question: what is selected (time range and filter), and what is asked about it.
//!
//! The query language's lexer and parser live here (`parse`), and so does the meaning of a filter on one record
//! (`evaluate`): every store must answer as `evaluate` would, record by record.

pub mod ast;
pub mod evaluate;
pub mod matcher;
pub mod number;
pub mod parser;
pub mod printer;
pub mod request;
pub mod stats;
pub mod text;
pub mod time;

pub use ast::{Expr, Field, Match, Term};
pub use evaluate::{CompiledExpr, CompiledSelection, CompiledTerm};
pub use matcher::Matcher;
pub use request::{
    Aggregate, AggregateKind, FieldSummary, FieldsAnswer, FieldsRequest, Group, GroupBy, Histogram,
    HistogramBucket, HistogramRequest, Order, SearchAnswer, SearchRequest, Selection, StatsAnswer,
    StatsRequest, TimeRange, Total,
};
