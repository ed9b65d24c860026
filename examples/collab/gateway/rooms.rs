//! Holds all open pages, and keeps them up to date.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::StreamExt;
use parking_lot::Mutex;
use redis::Msg;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};

use super::message::{Edit, Receipt, Refusal, Said};
use super::room::Room;
use super::store::{DEAD, DURABLE, EDITS, Store};

const MOST_ROOMS: usize = 1000;
/// MongoDB is asked this often for what a page that is being opened lacks.
const OPENING: Duration = Duration::from_millis(100);
/// A page is shown without the edits that are still on their way to MongoDB if they take longer than this.
const OPENING_LIMIT: Duration = Duration::from_secs(10);
/// Receipts can be lost, as all that is published. Without one, MongoDB is asked this often for what is not saved.
const UNSAVED: Duration = Duration::from_secs(1);
/// So long is a page kept that nobody has open but whose edits are not saved.
const ABANDONED: Duration = Duration::from_secs(600);
/// A connection over which nothing is heard is tried this often.
const SILENCE: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(500);

/// All open pages of this gateway.
#[derive(Clone)]
pub(super) struct Rooms {
    store: Arc<Store>,
    /// None while nothing can be heard from Redis: nobody could be told what others type.
    open: Arc<Mutex<Option<Open>>>,
}

/// By their names.
type Open = HashMap<String, Arc<Entry>>;

/// A page, and a bell to ring when tidegate has written it, or somebody has left it.
#[derive(Default)]
struct Entry {
    room: Mutex<Room>,
    written: Notify,
    closed: Notify,
}

/// A browser that has a page open. Leaves when it is dropped.
pub(super) struct Seat {
    page: String,
    name: String,
    entry: Arc<Entry>,
    store: Arc<Store>,
}

impl Rooms {
    pub(super) fn new(store: Store) -> Self {
        Self { store: Arc::new(store), open: Arc::default() }
    }

    /// Opens a page for a browser. The error says why not, for people.
    pub(super) fn enter(&self, page: &str, outbox: mpsc::Sender<String>) -> Result<Seat, &'static str> {
        let name = format!("c-{:08x}", fastrand::u32(..));
        let mut open = self.open.lock();
        let open = open.as_mut().ok_or("Redis does not answer")?;
        let entry = match open.get(page) {
            Some(entry) => Arc::clone(entry),
            None if open.len() >= MOST_ROOMS => return Err("too many pages are open"),
            None => {
                let entry = Arc::new(Entry::default());
                open.insert(page.to_owned(), Arc::clone(&entry));
                tokio::spawn(self.clone().keep(page.to_owned(), Arc::clone(&entry)));
                entry
            }
        };
        if !entry.room.lock().enter(&name, outbox) {
            return Err("too many people have this page open");
        }
        Ok(Seat { page: page.to_owned(), name, entry, store: Arc::clone(&self.store) })
    }

    /// Passes on what is published, for as long as it is polled.
    pub(super) async fn follow(&self) {
        loop {
            let Err(error) = self.listen().await;
            // Something may have been missed. All browsers come back soon, and load their pages anew.
            let closed = self.open.lock().take();
            if let Some(closed) = &closed {
                eprintln!("collab: {} pages are closed until Redis is back: {error:#}", closed.len());
            }
            for entry in closed.into_iter().flat_map(HashMap::into_values) {
                entry.closed.notify_one();
                *entry.room.lock() = Room::default();
            }
            sleep(AGAIN).await;
        }
    }

    async fn listen(&self) -> anyhow::Result<std::convert::Infallible> {
        let (mut line, mut messages) = self.store.listen().await?.split();
        *self.open.lock() = Some(HashMap::new());
        loop {
            match timeout(SILENCE, messages.next()).await {
                Ok(Some(message)) => self.hear(&message),
                Ok(None) => bail!("the connection to Redis is lost"),
                Err(_) => timeout(SILENCE, line.ping::<redis::Value>())
                    .await
                    .context("Redis does not answer")?
                    .map(drop)?,
            }
        }
    }

    fn hear(&self, message: &Msg) {
        match message.get_channel_name() {
            EDITS => {
                if let Some(edit) = read::<Edit>(message)
                    && let Some(entry) = self.entry(&edit.page)
                {
                    entry.room.lock().edited(&edit);
                }
            }
            DURABLE => {
                if let Some(receipt) = read::<Receipt>(message)
                    && let Some(entry) = receipt.id.as_str().and_then(|page| self.entry(page))
                {
                    entry.room.lock().received(receipt);
                    entry.written.notify_one();
                }
            }
            DEAD => {
                if let Some(refusal) = read::<Refusal>(message)
                    && let Some(entry) = refusal.id.as_str().and_then(|page| self.entry(page))
                {
                    entry.room.lock().refused(&refusal.reason);
                }
            }
            _ => {}
        }
    }

    fn entry(&self, page: &str) -> Option<Arc<Entry>> {
        self.open.lock().as_ref()?.get(page).cloned()
    }

    /// Loads a page, and asks MongoDB how far it is whenever that may have changed, until nobody needs it any more.
    async fn keep(self, page: String, entry: Arc<Entry>) {
        let opened = Instant::now();
        let mut left = (Instant::now(), 0);
        let (mut asked_number, mut flushed) = (false, false);
        loop {
            if !asked_number {
                match self.store.last(&page).await {
                    Ok(number) => {
                        entry.room.lock().unheard(number);
                        asked_number = true;
                    }
                    Err(error) => entry.room.lock().waits(format!("{error:#}")),
                }
            }
            if asked_number && entry.room.lock().is_unsaved() {
                self.look(&page, &entry, opened.elapsed() >= OPENING_LIMIT).await;
            }
            let (entered, empty, unsaved, shown) = {
                let room = entry.room.lock();
                (room.entered(), room.is_empty(), room.is_unsaved(), room.is_shown())
            };
            if !empty || entered != left.1 {
                left = (Instant::now(), entered);
            } else if (!unsaved || left.0.elapsed() >= ABANDONED) && self.close(&page, &entry) {
                return;
            }
            // Nobody is there to wait for the window of what was typed.
            if empty && unsaved && !flushed {
                flushed = self.store.flush(&page).await.is_ok();
            }
            flushed &= empty;
            let pause = if shown { UNSAVED } else { OPENING };
            tokio::select! {
                () = entry.written.notified() => {}
                () = sleep(pause) => {}
                () = entry.closed.notified() => return,
            }
        }
    }

    /// Asks Redis and MongoDB. With `anyway`, a page that is read is shown even if it is not the latest.
    async fn look(&self, page: &str, entry: &Entry, anyway: bool) {
        let whole = entry.room.lock().lacks_something();
        let stored = if whole { self.store.load(page).await } else { self.store.look(page).await };
        let mut room = entry.room.lock();
        match stored {
            Ok(stored) if whole => {
                room.loaded(&stored);
                if !room.is_behind() || anyway {
                    room.show();
                }
                room.waits("its latest edits are on their way to MongoDB".to_owned());
            }
            Ok(stored) => room.saw(&stored),
            Err(error) => room.waits(format!("{error:#}").lines().next().unwrap_or_default().to_owned()),
        }
    }

    /// Whether it could be closed: nobody may have entered in the meantime.
    fn close(&self, page: &str, entry: &Arc<Entry>) -> bool {
        let mut open = self.open.lock();
        if !entry.room.lock().is_empty() {
            return false;
        }
        if let Some(open) = open.as_mut()
            && open.get(page).is_some_and(|there| Arc::ptr_eq(there, entry))
        {
            open.remove(page);
        }
        true
    }
}

impl Seat {
    /// Pushes what the browser has typed. The error says why not, for people.
    pub(super) async fn edit(&self, message: &str) -> Result<(), String> {
        let said = Said::read(message)?;
        let least = self.entry.room.lock().admit(&said.paragraph)?;
        let pushed = self.store.push(&self.page, &self.name, said, least).await;
        pushed.map_err(|error| format!("Redis did not take it: {error:#}"))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.entry.room.lock().leave(&self.name);
        self.entry.written.notify_one();
    }
}

/// None: somebody else publishes there, too.
fn read<T: DeserializeOwned>(message: &Msg) -> Option<T> {
    serde_json::from_slice(message.get_payload_bytes()).ok()
}
