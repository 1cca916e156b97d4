//! What Elasticsearch is asked, as a pair of queries around the truth: every record that `lower` finds matches, and every record that matches
//! is found by `upper`. Where the two are the same, Elasticsearch's answer is exact; the records between them are judged by `query::evaluate`.

use serde_json::{Value as Json, json};

/// A query that Elasticsearch understands, kept simple: no `All` or `Nothing` inside the others.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    All,
    Nothing,
    Clause(Json),
    And(Vec<Query>),
    Or(Vec<Query>),
    Not(Box<Query>),
}

impl Query {
    pub fn and(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Vec::new();
        for part in parts {
            match part {
                Self::All => {}
                Self::Nothing => return Self::Nothing,
                Self::And(more) => all.extend(more),
                one => all.push(one),
            }
        }
        match all.len() {
            0 => Self::All,
            1 => all.pop().unwrap_or(Self::All),
            _ => Self::And(all),
        }
    }

    pub fn or(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut any = Vec::new();
        for part in parts {
            match part {
                Self::Nothing => {}
                Self::All => return Self::All,
                Self::Or(more) => any.extend(more),
                one if any.contains(&one) => {}
                one => any.push(one),
            }
        }
        match any.len() {
            0 => Self::Nothing,
            1 => any.pop().unwrap_or(Self::Nothing),
            _ => Self::Or(any),
        }
    }

    pub fn not(self) -> Self {
        match self {
            Self::All => Self::Nothing,
            Self::Nothing => Self::All,
            Self::Not(inner) => *inner,
            one => Self::Not(Box::new(one)),
        }
    }

    pub fn to_json(&self) -> Json {
        match self {
            Self::All => json!({"match_all": {}}),
            Self::Nothing => json!({"match_none": {}}),
            Self::Clause(clause) => clause.clone(),
            Self::And(parts) => {
                let (excluded, wanted): (Vec<&Self>, Vec<&Self>) =
                    parts.iter().partition(|part| matches!(part, Self::Not(_)));
                let filter: Vec<Json> = wanted.into_iter().map(Self::to_json).collect();
                let must_not: Vec<Json> = excluded
                    .into_iter()
                    .filter_map(|part| match part {
                        Self::Not(inner) => Some(inner.to_json()),
                        _ => None,
                    })
                    .collect();
                match (filter.is_empty(), must_not.is_empty()) {
                    (false, true) => json!({"bool": {"filter": filter}}),
                    (true, false) => json!({"bool": {"must_not": must_not}}),
                    _ => json!({"bool": {"filter": filter, "must_not": must_not}}),
                }
            }
            Self::Or(parts) => {
                let should: Vec<Json> = parts.iter().map(Self::to_json).collect();
                json!({"bool": {"should": should, "minimum_should_match": 1}})
            }
            Self::Not(inner) => json!({"bool": {"must_not": [inner.to_json()]}}),
        }
    }
}

/// See the module's head.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    pub lower: Query,
    pub upper: Query,
}

impl Bounds {
    pub fn exact(query: Query) -> Self {
        Self {
            lower: query.clone(),
            upper: query,
        }
    }

    pub fn clause(clause: Json) -> Self {
        Self::exact(Query::Clause(clause))
    }

    pub fn nothing() -> Self {
        Self::exact(Query::Nothing)
    }

    /// Perhaps those that `query` finds.
    pub fn at_most(query: Query) -> Self {
        Self {
            lower: Query::Nothing,
            upper: query,
        }
    }

    pub fn is_exact(&self) -> bool {
        self.lower == self.upper
    }

    pub fn and(parts: Vec<Self>) -> Self {
        let (lower, upper): (Vec<Query>, Vec<Query>) = parts
            .into_iter()
            .map(|part| (part.lower, part.upper))
            .unzip();
        Self {
            lower: Query::and(lower),
            upper: Query::and(upper),
        }
    }

    pub fn or(parts: Vec<Self>) -> Self {
        let (lower, upper): (Vec<Query>, Vec<Query>) = parts
            .into_iter()
            .map(|part| (part.lower, part.upper))
            .unzip();
        Self {
            lower: Query::or(lower),
            upper: Query::or(upper),
        }
    }

    pub fn not(self) -> Self {
        Self {
            lower: self.upper.not(),
            upper: self.lower.not(),
        }
    }

    /// Those that only `query::evaluate` can judge.
    pub fn doubtful(&self) -> Query {
        if self.is_exact() {
            return Query::Nothing;
        }
        Query::and([self.upper.clone(), self.lower.clone().not()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_stay_around_the_truth() {
        let clause = |name: &str| Query::Clause(json!({"term": {"f": name}}));
        let sure = Bounds::exact(clause("sure"));
        let maybe = Bounds {
            lower: clause("low"),
            upper: Query::or([clause("low"), clause("high")]),
        };
        assert!(Bounds::and(vec![sure.clone(), sure.clone().not()]).is_exact());
        let both = Bounds::and(vec![sure.clone(), maybe.clone().not()]);
        assert!(!both.is_exact());
        assert_eq!(
            both.lower,
            Query::And(vec![
                clause("sure"),
                Query::Not(Box::new(Query::Or(vec![clause("low"), clause("high")])))
            ])
        );
        assert_eq!(
            both.upper,
            Query::And(vec![clause("sure"), clause("low").not()])
        );
        assert_eq!(
            Bounds::or(vec![Bounds::exact(Query::All), maybe]).doubtful(),
            Query::Nothing
        );
        assert_eq!(Bounds::or(Vec::new()), Bounds::nothing());
        assert_eq!(Bounds::and(Vec::new()), Bounds::exact(Query::All));
    }

    #[test]
    fn queries_are_written_flat() {
        let clause = |name: &str| Query::Clause(json!({"term": {"f": name}}));
        let query = Query::and([clause("a"), clause("b").not(), Query::All]);
        assert_eq!(
            query.to_json(),
            json!({"bool": {"filter": [{"term": {"f": "a"}}], "must_not": [{"term": {"f": "b"}}]}})
        );
        assert_eq!(
            clause("a").not().to_json(),
            json!({"bool": {"must_not": [{"term": {"f": "a"}}]}})
        );
    }
}
