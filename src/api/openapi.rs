//! `/openapi.json`: kept by hand beside this file; `serve`'s tests compare it with the routes.

use axum::http::{StatusCode, Uri};
use axum::response::Response;

use crate::common::error::Result;
use crate::common::http::{JSON, Params, bytes_response};

pub const DOCUMENT: &str = include_str!("openapi.json");

pub async fn document(uri: Uri) -> Result<Response> {
    Params::parse(&uri, &[])?;
    Ok(bytes_response(StatusCode::OK, JSON, DOCUMENT))
}
