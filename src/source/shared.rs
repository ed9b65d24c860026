//! Keeps one connection to each server for all queues that are there.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::error::SourceError;
use crate::caused::Caused;

/// Something that many hold at once, and that ends some time.
pub(super) trait Ends: Clone {
    /// Whether it has ended, so that another one is needed.
    fn has_ended(&self) -> bool;
}

/// What is shared, by the address of its server.
#[derive(Debug)]
pub(super) struct PerServer<T>(Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<OfOneServer<T>>>>>);

/// What is shared of one server.
#[derive(Debug)]
struct OfOneServer<T> {
    open: Option<T>,
    /// When it could not be opened, and why.
    failed: Option<(Instant, Caused)>,
}

impl<T> Default for PerServer<T> {
    fn default() -> Self {
        PerServer(Mutex::default())
    }
}

impl<T> Default for OfOneServer<T> {
    fn default() -> Self {
        OfOneServer { open: None, failed: None }
    }
}

impl<T: Ends> PerServer<T> {
    /// The one of a server, opened if there is none.
    ///
    /// # Errors
    /// What opening it met. Whoever waited for that meanwhile gets the same, and need not wait once more.
    pub(super) async fn get(
        &self,
        server: &str,
        open: impl AsyncFnOnce() -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let slot = Arc::clone(self.0.lock().entry(server.to_owned()).or_default());
        let asked = Instant::now();
        let mut slot = slot.lock().await;
        if let Some(open) = slot.open.as_ref().filter(|open| !open.has_ended()) {
            return Ok(open.clone());
        }
        if let Some((at, told)) = &slot.failed
            && *at >= asked
        {
            return Err(SourceError::Lost(told.clone()));
        }
        let opened = open().await;
        slot.failed = match &opened {
            Err(SourceError::Lost(told)) => Some((Instant::now(), told.clone())),
            _ => None,
        };
        slot.open = opened.as_ref().ok().cloned();
        opened
    }

    /// Has what is asked for from now on be opened anew.
    pub(super) fn forget(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Handle(Arc<AtomicBool>);

    impl Ends for Handle {
        fn has_ended(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn there_is_one_for_each_server_until_it_ends() {
        let (shared, opened) = (PerServer::default(), AtomicUsize::new(0));
        let get = async |server: &str| {
            let open = async || {
                opened.fetch_add(1, Ordering::Relaxed);
                Ok(Handle::default())
            };
            shared.get(server, open).await.unwrap()
        };
        let first = get("a").await;
        assert!(Arc::ptr_eq(&first.0, &get("a").await.0));
        assert!(!Arc::ptr_eq(&first.0, &get("b").await.0));
        first.0.store(true, Ordering::Relaxed);
        let second = get("a").await;
        assert!(!Arc::ptr_eq(&first.0, &second.0) && Arc::ptr_eq(&second.0, &get("a").await.0));
        shared.forget();
        assert!(!Arc::ptr_eq(&second.0, &get("a").await.0));
        assert_eq!(opened.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn those_who_wait_together_fail_together() {
        let (shared, tries) = (PerServer::<Handle>::default(), AtomicUsize::new(0));
        let get = async || {
            let open = async || {
                tries.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Err(SourceError::Lost("nobody listens".into()))
            };
            shared.get("a", open).await.unwrap_err().to_string()
        };
        let (one, other) = tokio::join!(get(), get());
        assert_eq!((one.as_str(), tries.load(Ordering::Relaxed)), (other.as_str(), 1));
        get().await;
        assert_eq!(tries.load(Ordering::Relaxed), 2, "whoever comes later tries again");
    }
}
