//! READ 4: HTTP for questions. Handlers read parameters, ask the searcher, frame the answer; they know no store. Handlers that write stand
//! in `intake`.

pub mod answer;
mod dead_letters;
pub mod encode;
mod export;
mod interval;
mod logs;
pub mod openapi;
mod record;
mod selection;
mod status;
pub mod sse;
mod summary;
mod tail;

use std::sync::Arc;

use axum::Router;
use axum::routing::{delete, get};
use tokio_util::sync::CancellationToken;

use crate::common::metrics::Metrics;
use crate::queue::Queue;
use crate::record::aliases::Aliases;
use crate::search::Searcher;
use crate::store::Store;

pub use crate::api::status::Identity;

#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// Names that mean the standard fields in questions.
    pub aliases: Aliases,
    /// Records of one JSON page.
    pub page_limit_max: u64,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self {
            aliases: Aliases::default(),
            page_limit_max: 10_000,
        }
    }
}

/// What the handlers work with.
pub struct ApiState {
    pub queue: Arc<dyn Queue>,
    pub store: Arc<dyn Store>,
    pub searcher: Arc<Searcher>,
    pub metrics: Arc<Metrics>,
    /// Cancelled when the process begins to stop.
    pub leaving: CancellationToken,
    /// Why parts that are not named here work in a reduced way.
    pub degraded: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    pub identity: Identity,
    pub options: ApiOptions,
}

/// A path with what it takes, for the OpenAPI document and the advice in errors.
pub struct Route {
    pub path: &'static str,
    pub method: &'static str,
    /// Lists of query parameters.
    pub parameters: &'static [&'static [&'static str]],
}

/// Every route of this module.
pub const ROUTES: [Route; 14] = [
    route("/logs", "get", &[&selection::PARAMETERS, &logs::PARAMETERS]),
    route(
        "/logs/histogram",
        "get",
        &[&selection::PARAMETERS, &summary::HISTOGRAM_PARAMETERS],
    ),
    route(
        "/logs/fields",
        "get",
        &[&selection::PARAMETERS, &summary::FIELDS_PARAMETERS],
    ),
    route(
        "/logs/stats",
        "get",
        &[&selection::PARAMETERS, &summary::STATS_PARAMETERS],
    ),
    route(
        "/logs/tail",
        "get",
        &[&selection::PARAMETERS, &tail::PARAMETERS],
    ),
    route("/logs/{id}", "get", &[]),
    route("/logs/{id}/context", "get", &[&record::CONTEXT_PARAMETERS]),
    route("/dead-letters", "get", &[&dead_letters::PARAMETERS]),
    route("/dead-letters/{id}", "delete", &[]),
    route("/status", "get", &[]),
    route("/metrics", "get", &[]),
    route("/healthz", "get", &[]),
    route("/readyz", "get", &[]),
    route("/openapi.json", "get", &[]),
];

/// What every process serves, whatever its roles.
pub const HEALTH_PATHS: [&str; 4] = ["/status", "/metrics", "/healthz", "/readyz"];

/// The routes of [`HEALTH_PATHS`] alone, for processes that answer no questions.
pub fn health_router(state: Arc<ApiState>) -> Router {
    Router::new()
        .route("/status", get(status::status))
        .route("/metrics", get(status::metrics))
        .route("/healthz", get(status::healthz))
        .route("/readyz", get(status::readyz))
        .with_state(state)
}

const fn route(
    path: &'static str,
    method: &'static str,
    parameters: &'static [&'static [&'static str]],
) -> Route {
    Route {
        path,
        method,
        parameters,
    }
}

pub fn router(state: Arc<ApiState>) -> Router {
    Router::new()
        .route("/logs", get(logs::logs))
        .route("/logs/histogram", get(summary::histogram))
        .route("/logs/fields", get(summary::fields))
        .route("/logs/stats", get(summary::stats))
        .route("/logs/tail", get(tail::tail))
        .route("/logs/{id}", get(record::record))
        .route("/logs/{id}/context", get(record::context))
        .route("/dead-letters", get(dead_letters::list))
        .route("/dead-letters/{id}", delete(dead_letters::delete))
        .route("/openapi.json", get(openapi::document))
        .with_state(state.clone())
        .merge(health_router(state))
}
