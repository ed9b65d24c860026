//! Defines what the forge does, and to which commands.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bson::Document;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::super::wait::try_eventually;
use super::statements::{Statement, statements};

type Predicate = Box<dyn Fn(&Document) -> bool + Send + Sync>;
type Refusal = Box<dyn FnMut(&Statement<'_>) -> Option<Document> + Send>;
type Answering = Box<dyn FnMut(&[Statement<'_>]) -> Option<Document> + Send>;
type Rewriting = Box<dyn Fn(&Document, &mut Document) + Send + Sync>;
type Race = Box<dyn Fn(Document) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// What happens to a command.
pub(super) enum Action {
    /// It is answered, and the server never hears of it.
    Answer(Mutex<Answering>),
    /// Some of its statements are refused; the server sees the others.
    Refuse(Mutex<Refusal>),
    /// The server does it and the reply is changed.
    Rewrite(Rewriting),
    /// This is done first.
    Race(Race),
    /// The server does it, and the reply comes so much later.
    Delay(Duration),
    /// The server does it, and the reply comes when the rule is released.
    HoldReply,
    /// The server gets it when the rule is released.
    HoldRequest,
    /// The server does it; the reply never comes.
    DropReply,
    /// The connection ends; the server never hears of it.
    Close,
    /// The server does it, and then the connection ends.
    CloseAfter,
}

/// Which commands something happens to, and how often. One of the methods that say what makes a [`Rule`] of it.
pub(crate) struct On {
    names: Vec<&'static str>,
    collection: Option<String>,
    database: Option<String>,
    predicate: Option<Predicate>,
    times: Option<usize>,
}

/// What happens to which commands. The first rule that fits a command has it.
pub(crate) struct Rule {
    on: On,
    pub(super) action: Action,
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    hits: usize,
    /// Nothing is held any more, and nothing is hit.
    removed: bool,
}

/// A rule that is in force until it is removed.
#[derive(Clone)]
pub(crate) struct InForce(pub(super) Arc<Rule>);

impl On {
    /// These commands.
    pub(crate) fn commands(names: &[&'static str]) -> Self {
        On { names: names.to_vec(), collection: None, database: None, predicate: None, times: None }
    }

    /// This command.
    pub(crate) fn command(name: &'static str) -> Self {
        Self::commands(&[name])
    }

    /// `insert`, `update` and `delete`.
    pub(crate) fn writes() -> Self {
        Self::commands(&["insert", "update", "delete"])
    }

    /// Only those to this collection.
    pub(crate) fn collection(mut self, name: &str) -> Self {
        self.collection = Some(name.to_owned());
        self
    }

    /// Only those to this database.
    pub(crate) fn database(mut self, name: &str) -> Self {
        self.database = Some(name.to_owned());
        self
    }

    /// Only those of which this is true.
    pub(crate) fn when(mut self, is: impl Fn(&Document) -> bool + Send + Sync + 'static) -> Self {
        self.predicate = Some(Box::new(is));
        self
    }

    /// Only the first so many of them.
    pub(crate) fn times(mut self, times: usize) -> Self {
        self.times = Some(times);
        self
    }

    /// Answers with this, and does not ask the server.
    pub(crate) fn answer(self, reply: Document) -> Rule {
        self.answer_with(move |_| Some(reply.clone()))
    }

    /// The same for those for whose statements there is an answer; the others are not hit.
    pub(crate) fn answer_with(
        self,
        reply: impl FnMut(&[Statement<'_>]) -> Option<Document> + Send + 'static,
    ) -> Rule {
        self.rule(Action::Answer(Mutex::new(Box::new(reply))))
    }

    /// Refuses the statements for which there is a `writeErrors` entry (`code`, `errmsg`, ...; the forge adds `index`).
    /// They are not applied; the server sees the others. A command without such a statement is not hit.
    pub(crate) fn refuse(
        self,
        error: impl FnMut(&Statement<'_>) -> Option<Document> + Send + 'static,
    ) -> Rule {
        self.rule(Action::Refuse(Mutex::new(Box::new(error))))
    }

    /// Lets the server do it and changes its reply; gets the command, too.
    pub(crate) fn rewrite(self, change: impl Fn(&Document, &mut Document) + Send + Sync + 'static) -> Rule {
        self.rule(Action::Rewrite(Box::new(change)))
    }

    /// Does this before the server gets the command, which it is told: how somebody else comes first.
    pub(crate) fn race<F: Future<Output = ()> + Send + 'static>(
        self,
        first: impl Fn(Document) -> F + Send + Sync + 'static,
    ) -> Rule {
        self.rule(Action::Race(Box::new(move |command| Box::pin(first(command)))))
    }

    /// Lets the server do it, and its reply wait so long.
    pub(crate) fn delay(self, by: Duration) -> Rule {
        self.rule(Action::Delay(by))
    }

    /// Lets the server do it, and its reply wait until the rule is removed.
    pub(crate) fn hold_reply(self) -> Rule {
        self.rule(Action::HoldReply)
    }

    /// Lets it wait until the rule is removed; then the server does it, even if the client has given up.
    pub(crate) fn hold_request(self) -> Rule {
        self.rule(Action::HoldRequest)
    }

    /// Lets the server do it, and never tells.
    pub(crate) fn drop_reply(self) -> Rule {
        self.rule(Action::DropReply)
    }

    /// Ends the connection instead.
    pub(crate) fn close(self) -> Rule {
        self.rule(Action::Close)
    }

    /// Lets the server do it, and ends the connection instead of a reply.
    pub(crate) fn close_after(self) -> Rule {
        self.rule(Action::CloseAfter)
    }

    fn rule(self, action: Action) -> Rule {
        Rule { on: self, action, state: watch::Sender::default() }
    }
}

/// What becomes of a command.
pub(super) struct Fate {
    pub(super) rule: Arc<Rule>,
    /// The answer, if that is the rule.
    pub(super) answer: Option<Document>,
    /// The statements that are refused, if that is the rule.
    pub(super) refused: Vec<(usize, Document)>,
}

impl Rule {
    /// Whether it might hit a command of that name.
    pub(super) fn is_about(&self, name: &str) -> bool {
        self.on.names.contains(&name) && self.is_left(*self.state.borrow())
    }

    /// Hits a command if it is the rule's.
    pub(super) fn hit(self: &Arc<Self>, command: &Document) -> Option<Fate> {
        let On { collection, database, predicate, .. } = &self.on;
        let is =
            |wanted: &Option<String>, found: Option<&str>| wanted.is_none() || wanted.as_deref() == found;
        let target = command.iter().next()?.1.as_str();
        let fits = is(collection, target)
            && is(database, command.get_str("$db").ok())
            && predicate.as_ref().is_none_or(|is| is(command));
        if !fits {
            return None;
        }
        let mut fate = None;
        // Counted while nobody else counts, so that not more are hit than there are left.
        self.state.send_if_modified(|state| {
            if !self.is_left(*state) {
                return false;
            }
            let (mut answer, mut refused) = (None, Vec::new());
            match &self.action {
                Action::Answer(reply) => {
                    answer = reply.lock()(&statements(command));
                    if answer.is_none() {
                        return false;
                    }
                }
                Action::Refuse(error) => {
                    let mut error = error.lock();
                    let all = statements(command);
                    refused = all.iter().filter_map(|s| Some((s.index, error(s)?))).collect();
                    if refused.is_empty() {
                        return false;
                    }
                }
                _ => {}
            }
            state.hits += 1;
            fate = Some(Fate { rule: Arc::clone(self), answer, refused });
            true
        });
        fate
    }

    fn is_left(&self, state: State) -> bool {
        !state.removed && self.on.times.is_none_or(|times| state.hits < times)
    }

    pub(super) fn remove(&self) {
        self.state.send_modify(|state| state.removed = true);
    }

    /// Waits until the rule is removed.
    pub(super) async fn removed(&self) {
        let mut state = self.state.subscribe();
        // The sender lives as long as the rule.
        let _ = state.wait_for(|state| state.removed).await;
    }
}

impl InForce {
    /// How many commands it has hit.
    pub(crate) fn hits(&self) -> usize {
        self.0.state.borrow().hits
    }

    /// Waits until it has hit so many.
    pub(crate) async fn hit(&self, times: usize, limit: Duration) -> anyhow::Result<()> {
        try_eventually(limit, &format!("{times} hits of {:?}", self.0.on.names), async || match self.hits() {
            hits if hits >= times => Ok(()),
            hits => Err(format!("{hits} hits")),
        })
        .await
    }

    /// Ends it. What it holds is let go.
    pub(crate) fn remove(&self) {
        self.0.remove();
    }
}
