//! Serves one browser that has a page open.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, timeout};

use super::message::{LONGEST_MESSAGE, is_page_name};
use super::room::OUTBOX;
use super::rooms::{Rooms, Seat};

/// Who does not take a message in this time, or says nothing in thrice this time, is gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// A close frame holds no more.
const LONGEST_REASON: usize = 120;
/// "Try again later", and "policy violation": trying again would not help.
const LATER: u16 = 1013;
const NEVER: u16 = 1008;

/// `/socket/<page>`
pub(super) async fn open(
    State(rooms): State<Rooms>,
    Path(page): Path<String>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    // Browsers let any site open a socket to here, and say which.
    if !is_own_page(&headers) {
        return (StatusCode::FORBIDDEN, "not from another site").into_response();
    }
    if !is_page_name(&page) {
        return (StatusCode::NOT_FOUND, "no page has such a name").into_response();
    }
    let upgrade = upgrade.max_message_size(LONGEST_MESSAGE).max_frame_size(LONGEST_MESSAGE);
    upgrade.on_upgrade(async move |mut socket| {
        let (outbox, inbox) = mpsc::channel(OUTBOX);
        let (code, reason) = match rooms.enter(&page, outbox) {
            Ok(seat) => talk(&mut socket, &seat, inbox).await,
            Err(reason) => (LATER, reason.to_owned()),
        };
        let reason: String = reason.chars().filter(char::is_ascii).take(LONGEST_REASON).collect();
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        // It may have gone.
        let _ = timeout(PATIENCE, socket.send(close)).await;
    })
}

fn is_own_page(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let origin = text(header::ORIGIN).and_then(|origin| origin.split_once("://"));
    origin.is_some_and(|(_, host)| text(header::HOST) == Some(host))
}

/// Until either side ends it; says why.
async fn talk(socket: &mut WebSocket, seat: &Seat, mut inbox: mpsc::Receiver<String>) -> (u16, String) {
    let mut pings = interval_at(Instant::now() + PATIENCE, PATIENCE);
    let mut heard = Instant::now();
    loop {
        let message = tokio::select! {
            said = socket.recv() => {
                heard = Instant::now();
                match said {
                    // One after the other, so that they stay in order, and no more than Redis takes.
                    Some(Ok(Message::Text(said))) => match seat.edit(&said).await {
                        Ok(()) => continue,
                        Err(reason) => return (LATER, reason),
                    },
                    Some(Ok(Message::Binary(_))) => return (NEVER, "that is no edit".to_owned()),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return (LATER, String::new()),
                }
            }
            told = inbox.recv() => match told {
                Some(told) => Message::Text(told.into()),
                None => return (LATER, "too slow, or Redis is away".to_owned()),
            },
            _ = pings.tick() => {
                if heard.elapsed() > 3 * PATIENCE {
                    return (LATER, "nothing was heard".to_owned());
                }
                Message::Ping(axum::body::Bytes::new())
            }
        };
        if !matches!(timeout(PATIENCE, socket.send(message)).await, Ok(Ok(()))) {
            return (LATER, "too slow".to_owned());
        }
    }
}
