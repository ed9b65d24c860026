//! The HTTP listener: metrics, probes, status.

mod limited;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;

use self::limited::{Limited, Limits};
use crate::metrics::Exporter;
use crate::status::Status;

#[derive(Clone)]
struct Shared {
    status: Arc<Status>,
    exporter: Exporter,
}

/// Serves `/metrics`, `/livez`, `/readyz` and `/status` for as long as it is polled.
///
/// # Errors
/// The listener's.
pub async fn serve(listener: TcpListener, status: Arc<Status>, exporter: Exporter) -> std::io::Result<()> {
    serve_within(Limits::default(), listener, status, exporter).await
}

async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    status: Arc<Status>,
    exporter: Exporter,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { Json(json!({ "alive": true })) }))
        .route("/readyz", get(readyz))
        .route("/status", get(|State(shared): State<Shared>| async move { Json(shared.status.to_json()) }))
        .fallback(|| async {
            let paths = ["/metrics", "/livez", "/readyz", "/status"];
            (StatusCode::NOT_FOUND, Json(json!({ "error": "no such page", "pages": paths })))
        })
        .with_state(Shared { status, exporter });
    axum::serve(Limited::new(listener, limits), router).await
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let content_type = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    ([content_type], shared.exporter.render()).into_response()
}

async fn readyz(State(shared): State<Shared>) -> Response {
    let code = if shared.status.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(shared.status.readiness())).into_response()
}
