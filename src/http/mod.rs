//! Serves the status page, metrics and probes over HTTP. All of it can only be read.

mod durable;
mod limited;
mod page;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;

pub(crate) use self::durable::Asked;
use self::limited::{ConnectionLimits, Limited};
use crate::metrics::Exporter;
use crate::status::Status;

#[derive(Clone)]
struct HttpState {
    status: Arc<Status>,
    exporter: Exporter,
    asked: Asked,
}

/// Serves the status page, `/metrics`, `/livez`, `/readyz`, `/status`, `/config` and `/durable` for as long as it is polled.
pub(crate) async fn serve(
    listener: TcpListener,
    status: Arc<Status>,
    exporter: Exporter,
    asked: Asked,
) -> std::io::Result<()> {
    serve_within(ConnectionLimits::default(), listener, status, exporter, asked).await
}

async fn serve_within(
    limits: ConnectionLimits,
    listener: TcpListener,
    status: Arc<Status>,
    exporter: Exporter,
    asked: Asked,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { Json(json!({ "alive": true })) }))
        .route("/readyz", get(readyz))
        .route("/status", get(told))
        .route("/config", get(config))
        .route("/durable/{queue}/{offset}", get(durable::durable))
        .merge(page::routes())
        .fallback(|| async {
            let paths = ["/", "/metrics", "/livez", "/readyz", "/status", "/config", "/durable/QUEUE/OFFSET"];
            (StatusCode::NOT_FOUND, Json(json!({ "error": "no such page", "pages": paths })))
        })
        .layer(map_response(guarded))
        .with_state(HttpState { status, exporter, asked });
    axum::serve(Limited::new(listener, limits), router).await
}

/// What browsers must not do with any answer: take it for something else, keep it, show it within another site's page, or
/// let it load anything. Nothing here allows another origin to read an answer, and there is nothing to change.
const GUARDS: [(HeaderName, HeaderValue); 6] = [
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(page::POLICY)),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

async fn guarded(mut response: Response) -> Response {
    response.headers_mut().extend(GUARDS);
    response
}

async fn metrics(State(shared): State<HttpState>) -> Response {
    let content_type = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    ([content_type], shared.exporter.render()).into_response()
}

async fn readyz(State(shared): State<HttpState>) -> Response {
    let code = if shared.status.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(shared.status.readiness())).into_response()
}

/// With `?since=N`, the history too, from look N on.
async fn told(State(shared): State<HttpState>, RawQuery(query): RawQuery) -> Response {
    let asked = query.iter().flat_map(|query| query.split('&')).find_map(|part| part.strip_prefix("since="));
    let Some(since) = asked.map(str::parse).transpose().ok() else {
        let error = json!({ "error": "since must be a number, as history.next of an earlier answer" });
        return (StatusCode::BAD_REQUEST, Json(error)).into_response();
    };
    Json(shared.status.report(since)).into_response()
}

async fn config(State(shared): State<HttpState>) -> String {
    shared.status.config_toml()
}
