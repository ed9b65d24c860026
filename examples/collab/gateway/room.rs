//! Holds a page that somebody has open: its paragraphs, who has it open, and how far MongoDB is. No I/O.

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::message::{Edit, Paragraphs, Receipt, Told};
use super::store::Stored;

/// Messages that wait for a browser. One that lets more gather is shut out; it comes back and loads the page anew.
pub(super) const OUTBOX: usize = 256;
const MOST_PEOPLE: usize = 100;
/// Paragraphs, with those that are removed and may still be in MongoDB.
const MOST_PARAGRAPHS: usize = 500;
/// Edits of a page that may wait in Redis.
const MOST_UNSAVED: u64 = 200_000;

/// An open page.
#[derive(Debug, Default)]
pub(super) struct Room {
    paragraphs: BTreeMap<String, Paragraph>,
    /// The number of the last edit that is known of.
    last: u64,
    /// MongoDB has dealt with all edits up to this one. Only MongoDB itself says so.
    saved: u64,
    /// Of those, so many were refused.
    lost: u64,
    /// What had been pushed when the room was opened, and was never heard here: MongoDB alone can tell what it was.
    unheard: Option<u64>,
    /// Whether browsers have been shown the page.
    shown: bool,
    why: String,
    receipt: Option<Receipt>,
    people: Vec<Person>,
    entered: u64,
}

#[derive(Debug)]
struct Paragraph {
    /// None: removed.
    text: Option<String>,
    /// The edit that made it so.
    number: u64,
}

#[derive(Debug)]
struct Person {
    name: String,
    outbox: mpsc::Sender<String>,
}

impl Room {
    /// Lets a browser in under this name, and tells it what there is. False: it is full.
    pub(super) fn enter(&mut self, name: &str, outbox: mpsc::Sender<String>) -> bool {
        if self.people.len() >= MOST_PEOPLE {
            return false;
        }
        let told = if self.shown {
            self.whole(name)
        } else {
            Told::Waiting { why: if self.why.is_empty() { "it is being loaded" } else { &self.why } }
        };
        // It is empty, so there is room.
        let _ = outbox.try_send(told.to_json());
        self.people.push(Person { name: name.to_owned(), outbox });
        self.entered += 1;
        self.tell_people();
        true
    }

    pub(super) fn leave(&mut self, name: &str) {
        self.people.retain(|person| person.name != name);
        self.tell_people();
    }

    /// Whether an edit of this paragraph may be pushed, and what the page has reached.
    pub(super) fn admit(&self, paragraph: &str) -> Result<u64, &'static str> {
        if !self.shown {
            return Err("the page is not loaded yet");
        }
        if self.last.saturating_sub(self.saved) >= MOST_UNSAVED {
            return Err("too much of this page waits to be saved");
        }
        if self.paragraphs.len() >= MOST_PARAGRAPHS && !self.paragraphs.contains_key(paragraph) {
            return Err("this page has too many paragraphs");
        }
        Ok(self.last)
    }

    /// An edit was published. They come in the order of their numbers.
    pub(super) fn edited(&mut self, edit: &Edit) {
        self.last = self.last.max(edit.number);
        self.apply(edit.number, &edit.changes.paragraphs);
        let Edit { number, by, own, changes, .. } = edit;
        self.tell(&Told::Edit { number: *number, by, own: *own, paragraphs: &changes.paragraphs });
    }

    /// What had been pushed before anything could be heard here.
    pub(super) fn unheard(&mut self, number: u64) {
        self.unheard = Some(number);
        self.last = self.last.max(number);
    }

    /// Whether there are edits that MongoDB has and nobody here has heard.
    pub(super) fn is_behind(&self) -> bool {
        self.unheard.is_none_or(|number| self.saved < number)
    }

    /// Whether only all of the page, from MongoDB, can help.
    pub(super) fn lacks_something(&self) -> bool {
        !self.shown || self.is_behind()
    }

    pub(super) fn is_shown(&self) -> bool {
        self.shown
    }

    pub(super) fn is_empty(&self) -> bool {
        self.people.is_empty()
    }

    /// How many have ever entered.
    pub(super) fn entered(&self) -> u64 {
        self.entered
    }

    /// Whether it is worth to ask MongoDB.
    pub(super) fn is_unsaved(&self) -> bool {
        self.lacks_something() || self.saved < self.last
    }

    /// Tidegate has written something. What that is, and whether it is all, MongoDB will say.
    pub(super) fn received(&mut self, receipt: Receipt) {
        self.receipt = Some(receipt);
        if !self.is_unsaved() {
            self.tell_saved();
        }
    }

    pub(super) fn refused(&mut self, reason: &str) {
        self.tell(&Told::Refused { reason });
    }

    /// MongoDB was asked how far it is.
    pub(super) fn saw(&mut self, stored: &Stored) {
        let (saved, lost) = (self.saved, self.lost);
        if stored.last >= self.saved {
            self.saved = stored.last;
            self.lost = stored.last.saturating_sub(stored.edits);
        }
        self.last = self.last.max(self.saved);
        // What is removed there, too, cannot come back.
        self.paragraphs.retain(|_, paragraph| paragraph.text.is_some() || paragraph.number > stored.last);
        if (saved, lost) != (self.saved, self.lost) && self.shown {
            self.tell_saved();
        }
    }

    /// MongoDB was asked for all of it: what it has and nobody here has heard is taken over.
    pub(super) fn loaded(&mut self, stored: &Stored) {
        let mut news: Paragraphs = BTreeMap::new();
        for (key, text) in &stored.paragraphs {
            let known = self.paragraphs.get(key);
            if known.is_none_or(|known| known.number <= stored.last && known.text.as_ref() != Some(text)) {
                news.insert(key.clone(), Some(text.clone()));
            }
        }
        for (key, known) in &self.paragraphs {
            let gone = known.text.is_some() && known.number <= stored.last;
            if gone && !stored.paragraphs.contains_key(key) {
                news.insert(key.clone(), None);
            }
        }
        self.apply(stored.last, &news);
        self.saw(stored);
        if self.shown && !news.is_empty() {
            self.tell(&Told::Edit { number: stored.last, by: "", own: 0, paragraphs: &news });
        }
    }

    /// The page cannot be shown yet.
    pub(super) fn waits(&mut self, why: String) {
        if !self.shown && self.why != why {
            self.tell(&Told::Waiting { why: &why });
            self.why = why;
        }
    }

    /// From now on all see the page.
    pub(super) fn show(&mut self) {
        if !self.shown {
            self.shown = true;
            let whole: Vec<_> = self.people.iter().map(|person| self.whole(&person.name).to_json()).collect();
            let mut whole = whole.into_iter();
            self.people.retain(|person| whole.next().is_some_and(|told| person.hears(told)));
        }
    }

    fn whole<'a>(&'a self, you: &'a str) -> Told<'a> {
        let texts = self.paragraphs.iter();
        let texts = texts.filter_map(|(key, paragraph)| Some((key.as_str(), paragraph.text.as_deref()?)));
        let Self { last, saved, lost, .. } = *self;
        Told::Page { you, paragraphs: texts.collect(), last, saved, lost }
    }

    fn apply(&mut self, number: u64, paragraphs: &Paragraphs) {
        for (key, text) in paragraphs {
            let paragraph = Paragraph { text: text.clone(), number };
            match self.paragraphs.get_mut(key) {
                Some(known) if known.number > number => {}
                Some(known) => *known = paragraph,
                None => drop(self.paragraphs.insert(key.clone(), paragraph)),
            }
        }
    }

    fn tell_saved(&mut self) {
        let receipt = self.receipt.take();
        let (ms, events) = receipt.map_or((None, None), |receipt| (receipt.ms, Some(receipt.events)));
        self.tell(&Told::Saved { saved: self.saved, lost: self.lost, ms, events });
    }

    fn tell_people(&mut self) {
        self.tell(&Told::People { people: self.people.len() });
    }

    fn tell(&mut self, told: &Told<'_>) {
        let told = told.to_json();
        self.people.retain(|person| person.hears(told.clone()));
    }
}

impl Person {
    /// False: it does not keep up, and is dropped, which closes its socket.
    fn hears(&self, told: String) -> bool {
        !matches!(self.outbox.try_send(told), Err(TrySendError::Full(_) | TrySendError::Closed(_)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn edit(number: u64, key: &str, text: Option<&str>) -> Edit {
        let edit = json!({
            "page": "p", "number": number, "by": "c", "own": 1, "changes": { "paragraphs": { key: text } },
        });
        serde_json::from_value(edit).expect("an edit")
    }

    fn stored(last: u64, edits: u64, paragraphs: &[(&str, &str)]) -> Stored {
        let paragraphs = paragraphs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned()));
        Stored { last, edits, paragraphs: paragraphs.collect() }
    }

    fn heard(inbox: &mut mpsc::Receiver<String>) -> Vec<Value> {
        let mut heard = Vec::new();
        while let Ok(told) = inbox.try_recv() {
            heard.push(serde_json::from_str(&told).expect("JSON"));
        }
        heard.retain(|told: &Value| told["type"] != "people");
        heard
    }

    fn entered(room: &mut Room) -> mpsc::Receiver<String> {
        let (outbox, inbox) = mpsc::channel(OUTBOX);
        assert!(room.enter("c", outbox));
        inbox
    }

    #[test]
    fn what_was_pushed_before_anybody_listened_comes_from_mongodb_and_what_is_newer_stays() {
        let mut room = Room::default();
        let mut inbox = entered(&mut room);
        room.unheard(4);
        room.loaded(&stored(2, 2, &[("a", "two"), ("b", "old")]));
        assert!(room.is_behind() && room.is_unsaved());
        room.edited(&edit(5, "a", Some("five")));
        room.edited(&edit(6, "c", None));
        room.loaded(&stored(4, 4, &[("a", "four"), ("c", "three"), ("d", "four")]));
        assert!(!room.is_behind() && room.is_unsaved(), "edits 5 and 6 are not saved");
        room.show();
        let told = heard(&mut inbox).pop().expect("the page");
        assert_eq!(told["paragraphs"], json!({ "a": "five", "d": "four" }));
        assert_eq!((&told["last"], &told["saved"], &told["lost"]), (&json!(6), &json!(4), &json!(0)));

        room.saw(&stored(6, 5, &[]));
        assert!(!room.is_unsaved());
        assert_eq!(heard(&mut inbox), [json!({ "type": "saved", "saved": 6, "lost": 1 })]);
        // What an old reply says changes nothing.
        room.saw(&stored(4, 4, &[]));
        assert!(heard(&mut inbox).is_empty() && !room.is_unsaved());
    }

    #[test]
    fn a_receipt_alone_saves_nothing() {
        let mut room = Room::default();
        room.unheard(0);
        room.loaded(&Stored::default());
        room.show();
        let mut inbox = entered(&mut room);
        room.edited(&edit(1, "a", Some("x")));
        heard(&mut inbox);
        room.received(Receipt { id: json!("p"), events: 1, ms: Some(7.0) });
        assert!(room.is_unsaved() && heard(&mut inbox).is_empty());
        room.saw(&stored(1, 1, &[]));
        let told = json!({ "type": "saved", "saved": 1, "lost": 0, "ms": 7.0, "events": 1 });
        assert_eq!(heard(&mut inbox), [told]);
    }

    #[test]
    fn who_does_not_keep_up_is_shut_out_and_nobody_else() {
        let mut room = Room::default();
        room.unheard(0);
        room.show();
        let (slow, mut unread) = mpsc::channel(OUTBOX);
        assert!(room.enter("slow", slow));
        let mut inbox = entered(&mut room);
        for number in 1..=OUTBOX as u64 + 1 {
            room.edited(&edit(number, "a", Some("x")));
            assert_eq!(heard(&mut inbox).len(), if number == 1 { 2 } else { 1 });
        }
        assert_eq!(room.people.len(), 1);
        while unread.try_recv().is_ok() {}
        assert_eq!(unread.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
    }

    #[test]
    fn a_page_is_bounded() {
        let mut room = Room::default();
        assert!(room.admit("a").is_err(), "it is not loaded");
        room.unheard(0);
        room.show();
        for number in 0..MOST_PARAGRAPHS {
            assert!(room.admit(&format!("p{number}")).is_ok());
            room.edited(&edit(number as u64 + 1, &format!("p{number}"), Some("x")));
        }
        assert!(room.admit("one-more").is_err() && room.admit("p7").is_ok());
        room.edited(&edit(MOST_UNSAVED, "p0", Some("x")));
        assert!(room.admit("p7").is_err());
        room.saw(&stored(MOST_UNSAVED, MOST_UNSAVED, &[]));
        assert!(room.admit("p7").is_ok());
        let mut inboxes = Vec::new();
        for _ in 0..MOST_PEOPLE {
            inboxes.push(entered(&mut room));
        }
        assert!(!room.enter("c", mpsc::channel(OUTBOX).0));
        inboxes.pop();
        room.edited(&edit(MOST_UNSAVED, "p0", Some("x")));
        assert!(room.enter("c", mpsc::channel(OUTBOX).0), "one has gone");
    }
}
