//! A question whose answer sums up all records of its selection: planned, asked over one snapshot, and asked with less left to the server where it
//! refuses, down to judging every record here.

use std::future::Future;

use crate::common::cancel::Cancel;
use crate::common::error::Result;
use crate::query::{CompiledSelection, Selection};
use crate::store::elasticsearch::Inner;
use crate::store::elasticsearch::read::asker::{Asker, Fault, PointInTime};
use crate::store::elasticsearch::read::bounds::Query;
use crate::store::elasticsearch::read::plan::{Plan, after};
use crate::store::elasticsearch::read::query::Level;

/// One try at a question.
pub struct Attempt<'a> {
    pub asker: &'a Asker<'a>,
    pub snapshot: &'a PointInTime<'a>,
    pub plan: &'a Plan,
    pub compiled: &'a CompiledSelection,
}

pub trait Summary: Sync {
    type Answer: Send;

    fn selection(&self) -> &Selection;

    /// The addresses whose types it needs besides the filter's; `None`: of all fields.
    fn addresses(&self) -> Option<Vec<String>>;

    /// The answer where nothing matches.
    fn of_nothing(&self, partial_reasons: Vec<String>) -> Self::Answer;

    fn attempt(
        &self,
        attempt: &Attempt<'_>,
    ) -> impl Future<Output = Result<Self::Answer, Fault>> + Send;
}

pub async fn answer<S: Summary>(inner: &Inner, request: &S, cancel: &Cancel) -> Result<S::Answer> {
    cancel.check()?;
    let selection = request.selection();
    let compiled = CompiledSelection::new(selection)?;
    let mut level = Level::Whole;
    loop {
        let asker = Asker::new(inner, &selection.range, cancel);
        match at_level(&asker, request, &compiled, level).await {
            Ok(answer) => return Ok(answer),
            Err(fault) => level = after(fault, level)?,
        }
    }
}

async fn at_level<S: Summary>(
    asker: &Asker<'_>,
    request: &S,
    compiled: &CompiledSelection,
    level: Level,
) -> Result<S::Answer, Fault> {
    let Some(snapshot) = asker.snapshot().await? else {
        return Ok(request.of_nothing(asker.partial_reasons()));
    };
    // Read after the snapshot was taken, the mapping knows every field of its records.
    let answer = match plan_of(asker, request, level).await {
        Ok(plan) if plan.bounds.upper == Query::Nothing => {
            Ok(request.of_nothing(asker.partial_reasons()))
        }
        Ok(plan) => {
            let attempt = Attempt {
                asker,
                snapshot: &snapshot,
                plan: &plan,
                compiled,
            };
            request.attempt(&attempt).await
        }
        Err(error) => Err(error.into()),
    };
    snapshot.close().await;
    answer
}

async fn plan_of<S: Summary>(asker: &Asker<'_>, request: &S, level: Level) -> Result<Plan> {
    let selection = request.selection();
    match request.addresses() {
        Some(addresses) => Plan::new(asker, selection, &addresses, level).await,
        None => Plan::with_catalog(selection, asker.catalog(None).await?, level),
    }
}
