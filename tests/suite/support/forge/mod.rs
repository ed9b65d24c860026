//! Forges what MongoDB says: a proxy between a client and a real server, which does all the rest.
//!
//! No server that can be had here answers as mongos, Atlas, DocumentDB or Cosmos DB do, or as mongod does in trouble.
//! Everything passes unless a [`Rule`] is made for it:
//!
//! ```ignore
//! let rule = forge.rule(On::command("update").collection("documents").refuse(|s| {
//!     (s.id_text() == "d1").then(|| write_error(371, "user writes blocked"))
//! }));
//! rule.hit(1, PATIENCE).await?;
//! rule.remove();
//! ```
//!
//! `hello` never tells of compression, nor of a server that pushes its state, so that all of it is `OP_MSG`, in turns.

mod codes;
mod rule;
mod statements;
mod wire;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, ensure};
use bson::{Document, doc};
use mongodb::options::{ClientOptions, ServerAddress};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::sleep;

pub(crate) use self::codes::Code;
use self::rule::{Action, Fate};
pub(crate) use self::rule::{InForce, On, Rule};
use self::statements::Split;
pub(crate) use self::statements::Statement;
use self::wire::Message;
use super::mongo::Mongo;
use super::port;

const PORTS_TRIED: usize = 5;

/// A command's refusal as a whole.
pub(crate) fn command_error(code: i32, name: &str, text: &str) -> Document {
    doc! { "ok": 0.0, "errmsg": text, "code": code, "codeName": name }
}

/// A statement's refusal; the forge adds the `index`.
pub(crate) fn write_error(code: i32, text: &str) -> Document {
    doc! { "code": code, "errmsg": text }
}

/// A proxy in front of one MongoDB server. Its connections end with it.
///
/// # Panics
/// On drop, if something passed that it did not understand: a test must not go by what the rules never saw.
pub(crate) struct Forge {
    address: SocketAddr,
    uri: String,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

struct Shared {
    server: SocketAddr,
    rules: Mutex<Vec<Arc<Rule>>>,
    faults: Mutex<Vec<String>>,
    /// The names of all commands, in small letters.
    heard: Mutex<BTreeSet<String>>,
    /// Connections of an earlier generation are to end.
    generation: watch::Sender<u64>,
}

impl Forge {
    /// Listens on a free port of this machine, in front of this server.
    pub(crate) async fn start(mongo: &Mongo) -> anyhow::Result<Self> {
        let options = ClientOptions::parse(mongo.uri()).await?;
        ensure!(options.tls.is_none(), "the forge cannot look into TLS");
        let [ServerAddress::Tcp { host, port }] = options.hosts.as_slice() else {
            anyhow::bail!("the forge stands in front of one server");
        };
        let named = (host.as_str(), port.unwrap_or(27017));
        let server = tokio::net::lookup_host(named).await?.next().context("no such host")?;
        let mut forge = Self::in_front_of(server).await?;
        let (before, after) =
            mongo.uri().split_once(&options.hosts[0].to_string()).context("no host in the URI")?;
        let after = after
            .strip_prefix(':')
            .map_or(after, |port| port.trim_start_matches(|c: char| c.is_ascii_digit()));
        forge.uri = format!("{before}{}{after}", forge.address);
        if !forge.uri.contains("directConnection=true") {
            let separator = if after.contains('?') { '&' } else { '?' };
            let slash = if after.contains('/') { "" } else { "/" };
            forge.uri += &format!("{slash}{separator}directConnection=true");
        }
        Ok(forge)
    }

    /// The same in front of whatever listens there; the URI then has no credentials.
    pub(crate) async fn in_front_of(server: SocketAddr) -> anyhow::Result<Self> {
        let mut tries = 0;
        let listener = loop {
            tries += 1;
            match TcpListener::bind((Ipv4Addr::LOCALHOST, port::free()?)).await {
                Ok(listener) => break listener,
                Err(error) if tries == PORTS_TRIED => return Err(error.into()),
                Err(_) => {}
            }
        };
        let address = listener.local_addr()?;
        let (rules, faults, heard, generation) = Default::default();
        let shared = Arc::new(Shared { server, rules, faults, heard, generation });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        let uri = format!("mongodb://{address}/?directConnection=true");
        Ok(Self { address, uri, shared, accepting })
    }

    /// Where clients find it.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The connection string for clients.
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// Puts a rule in force, behind those that are.
    pub(crate) fn rule(&self, rule: Rule) -> InForce {
        let rule = Arc::new(rule);
        self.shared.rules.lock().push(Arc::clone(&rule));
        InForce(rule)
    }

    /// Removes all rules. What they hold is let go.
    pub(crate) fn heal(&self) {
        self.shared.rules.lock().drain(..).for_each(|rule| rule.remove());
    }

    /// The names of all commands that came so far, in small letters.
    pub(crate) fn heard(&self) -> BTreeSet<String> {
        self.shared.heard.lock().clone()
    }

    /// Ends all connections.
    pub(crate) fn cut(&self) {
        self.shared.generation.send_modify(|generation| *generation += 1);
    }
}

impl Drop for Forge {
    fn drop(&mut self) {
        self.accepting.abort();
        self.heal();
        self.cut();
        let faults = self.shared.faults.lock();
        assert!(faults.is_empty() || std::thread::panicking(), "the forge did not understand: {faults:#?}");
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // A failed accept is its client's; the listener lives as long as this task.
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let shared = Arc::clone(&shared);
        let mut generation = shared.generation.subscribe();
        let born = *generation.borrow_and_update();
        tokio::spawn(async move {
            tokio::select! {
                served = serve(client, &shared) => {
                    if let Err(fault) = served {
                        shared.faults.lock().push(format!("{fault:#}"));
                    }
                }
                _ = generation.wait_for(|now| *now != born) => {}
            }
        });
    }
}

/// Serves one connection until either side has ended. An error is something that the forge did not understand.
async fn serve(mut client: TcpStream, shared: &Shared) -> anyhow::Result<()> {
    let Ok(mut server) = TcpStream::connect(shared.server).await else { return Ok(()) };
    // No matter: it is only slower without.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let mut unasked = [0];
    loop {
        let request = tokio::select! {
            request = Message::read(&mut client) => request,
            // Nothing is to come unasked, so it is the end.
            _ = server.peek(&mut unasked) => return Ok(()),
        };
        let Ok(Some(request)) = request else { return Ok(()) };
        match exchange(request, &mut server, shared).await? {
            Exchanged::Reply(reply) => {
                if client.write_all(reply.bytes()).await.is_err() {
                    return Ok(());
                }
            }
            Exchanged::Nothing => {}
            Exchanged::End => return Ok(()),
        }
    }
}

/// What the client gets.
enum Exchanged {
    Reply(Message),
    Nothing,
    End,
}

async fn exchange(request: Message, server: &mut TcpStream, shared: &Shared) -> anyhow::Result<Exchanged> {
    let name = request.name()?;
    let greets = request.greets(name.as_deref());
    let request = if greets { request.plain()? } else { request };
    let mut hit = None;
    if let Some(name) = &name {
        shared.heard.lock().insert(name.to_lowercase());
        let about: Vec<_> = shared.rules.lock().iter().filter(|rule| rule.is_about(name)).cloned().collect();
        if !about.is_empty() {
            let command = request.document()?;
            hit = about.iter().find_map(|rule| rule.hit(&command)).map(|fate| (fate, command));
        }
    }
    let exchanged = match hit {
        Some((fate, command)) => forge(fate, &request, &command, server).await?,
        None => match forward(&request, server).await? {
            Some(reply) => Exchanged::Reply(reply),
            None if request.is_answered() => Exchanged::End,
            None => Exchanged::Nothing,
        },
    };
    match exchanged {
        Exchanged::Reply(reply) if greets => Ok(Exchanged::Reply(reply.plain()?)),
        exchanged => Ok(exchanged),
    }
}

/// Does to a command what its rule says.
async fn forge(
    fate: Fate,
    request: &Message,
    command: &Document,
    server: &mut TcpStream,
) -> anyhow::Result<Exchanged> {
    ensure!(request.is_answered(), "a rule for a command that wants no answer: {command}");
    match &fate.rule.action {
        Action::Answer(_) => {
            let reply = fate.answer.context("an answer")?;
            return Ok(Exchanged::Reply(request.answer(&reply)?));
        }
        Action::Close => return Ok(Exchanged::End),
        Action::Refuse(_) => {
            let split = Split::new(command, fate.refused);
            let told = match &split.forwarded {
                None => None,
                Some(rest) => match forward(&request.with(rest)?, server).await? {
                    None => return Ok(Exchanged::End),
                    Some(reply) => Some(reply.document()?),
                },
            };
            return Ok(Exchanged::Reply(request.answer(&split.reply(told))?));
        }
        Action::Race(first) => first(command.clone()).await,
        Action::HoldRequest => fate.rule.removed().await,
        _ => {}
    }
    let Some(mut reply) = forward(request, server).await? else { return Ok(Exchanged::End) };
    match &fate.rule.action {
        Action::Rewrite(change) => {
            let mut document = reply.document()?;
            change(command, &mut document);
            reply = request.answer(&document)?;
        }
        Action::Delay(by) => sleep(*by).await,
        Action::HoldReply => fate.rule.removed().await,
        Action::DropReply => return Ok(Exchanged::Nothing),
        Action::CloseAfter => return Ok(Exchanged::End),
        _ => {}
    }
    Ok(Exchanged::Reply(reply))
}

/// Asks the server. None: it has ended, or wants not to be waited for.
async fn forward(request: &Message, server: &mut TcpStream) -> anyhow::Result<Option<Message>> {
    if server.write_all(request.bytes()).await.is_err() || !request.is_answered() {
        return Ok(None);
    }
    let Ok(Some(reply)) = Message::read(server).await else { return Ok(None) };
    ensure!(reply.is_answered(), "a reply with more to come");
    Ok(Some(reply))
}
