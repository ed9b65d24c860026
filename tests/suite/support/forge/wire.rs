//! Reads and writes MongoDB's wire protocol, as far as a proxy needs it: `OP_MSG`, and a first `OP_QUERY`.

use std::io;

use anyhow::{Context, bail, ensure};
use bson::{Bson, Document, RawDocument};
use tokio::io::{AsyncRead, AsyncReadExt};

const HEADER: usize = 16;
/// What drivers send; the server's own limit is 48 MB.
const LONGEST: usize = 64 << 20;
const OP_REPLY: i32 = 1;
const OP_QUERY: i32 = 2004;
const OP_MSG: i32 = 2013;
const CHECKSUM_PRESENT: u32 = 1;
const MORE_TO_COME: u32 = 1 << 1;
const EXHAUST_ALLOWED: u32 = 1 << 16;

/// What is kept out of every `hello`: compression, which would hide commands, and what a server needs to push its
/// state unasked.
const HIDDEN: [&str; 2] = ["compression", "topologyVersion"];

/// One message, as bytes.
#[derive(Debug, Clone)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// Reads one. None: the sender has ended.
    pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let mut bytes = vec![0; HEADER];
        match from.read_exact(&mut bytes).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        };
        let length = usize::try_from(number(&bytes, 0)).unwrap_or(0);
        if !(HEADER..=LONGEST).contains(&length) {
            return Err(io::Error::other(format!("a message of {length} bytes")));
        }
        bytes.resize(length, 0);
        from.read_exact(&mut bytes[HEADER..]).await?;
        Ok(Some(Self(bytes)))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether the sender waits for an answer.
    pub(super) fn is_answered(&self) -> bool {
        self.operation() != OP_MSG || self.flags() & MORE_TO_COME == 0
    }

    /// The command's name, without reading the rest of it. None: it is not an `OP_MSG`.
    pub(super) fn name(&self) -> anyhow::Result<Option<String>> {
        match self.operation() {
            OP_QUERY | OP_REPLY => Ok(None),
            OP_MSG => {
                ensure!(self.flags() & CHECKSUM_PRESENT == 0, "checksums are unknown to the forge");
                let body = self.body().context("a message without a body")?;
                let first = RawDocument::from_bytes(body)?.iter().next().context("an empty command")??;
                Ok(Some(first.0.to_string()))
            }
            other => bail!("operation {other} is unknown to the forge"),
        }
    }

    /// The command, or the reply, with its document sequences as arrays.
    pub(super) fn document(&self) -> anyhow::Result<Document> {
        ensure!(self.operation() == OP_MSG, "operation {} has no document", self.operation());
        let mut document = Document::new();
        let mut sequences = Document::new();
        for section in self.sections() {
            match section? {
                Section::Body(bytes) => document = bson::deserialize_from_slice(bytes)?,
                Section::Sequence(name, documents) => {
                    sequences.insert(name, documents.into_iter().map(Bson::Document).collect::<Vec<_>>());
                }
            }
        }
        document.extend(sequences);
        Ok(document)
    }

    /// The same message with another document.
    pub(super) fn with(&self, document: &Document) -> anyhow::Result<Self> {
        Self::encode(number(&self.0, 4), number(&self.0, 8), document)
    }

    /// The answer to this message.
    pub(super) fn answer(&self, document: &Document) -> anyhow::Result<Self> {
        Self::encode(0, number(&self.0, 4), document)
    }

    fn encode(id: i32, answers: i32, document: &Document) -> anyhow::Result<Self> {
        let mut bytes = vec![0; 4];
        bytes.extend([id, answers, OP_MSG, 0].into_iter().flat_map(i32::to_le_bytes));
        bytes.push(0);
        bytes.extend(bson::serialize_to_vec(document)?);
        Ok(Self(bytes).sized())
    }

    /// The message without what would hide later ones from the forge.
    pub(super) fn plain(self) -> anyhow::Result<Self> {
        match self.operation() {
            OP_MSG => {
                let flags = self.flags();
                let mut document = self.document()?;
                let hidden = HIDDEN.iter().filter(|key| document.remove(key).is_some()).count();
                if hidden > 0 {
                    return self.with(&document);
                }
                let mut message = self;
                message.0[HEADER..HEADER + 4].copy_from_slice(&(flags & !EXHAUST_ALLOWED).to_le_bytes());
                Ok(message)
            }
            // Flags and the namespace come first, then two numbers.
            OP_QUERY => {
                let name = self.0.get(HEADER + 4..).context("a query without a name")?;
                let name = name.iter().position(|byte| *byte == 0).context("an endless name")?;
                self.legacy(HEADER + 4 + name + 1 + 8)
            }
            // Flags, a cursor and two numbers come first.
            OP_REPLY => self.legacy(HEADER + 20),
            other => bail!("operation {other} is unknown to the forge"),
        }
    }

    fn legacy(mut self, at: usize) -> anyhow::Result<Self> {
        let mut document: Document = bson::deserialize_from_slice(self.0.get(at..).context("no document")?)?;
        HIDDEN.iter().for_each(|key| drop(document.remove(key)));
        self.0.truncate(at);
        self.0.extend(bson::serialize_to_vec(&document)?);
        Ok(self.sized())
    }

    /// Whether it may tell or ask what [`Message::plain`] takes out.
    pub(super) fn greets(&self, name: Option<&str>) -> bool {
        self.operation() != OP_MSG
            || name.is_some_and(|name| matches!(name, "hello" | "isMaster" | "ismaster"))
    }

    fn sized(mut self) -> Self {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_le_bytes());
        self
    }

    fn operation(&self) -> i32 {
        number(&self.0, 12)
    }

    fn flags(&self) -> u32 {
        u32::from_le_bytes(number(&self.0, HEADER).to_le_bytes())
    }

    fn body(&self) -> Option<&[u8]> {
        self.sections().find_map(|section| match section {
            Ok(Section::Body(bytes)) => Some(bytes),
            _ => None,
        })
    }

    fn sections(&self) -> impl Iterator<Item = anyhow::Result<Section<'_>>> {
        let mut rest = self.0.get(HEADER + 4..).unwrap_or_default();
        std::iter::from_fn(move || {
            let (kind, after) = rest.split_first()?;
            let section = Section::read(*kind, after);
            rest = match &section {
                Ok((_, rest)) => rest,
                Err(_) => &[],
            };
            Some(section.map(|(section, _)| section))
        })
    }
}

enum Section<'m> {
    Body(&'m [u8]),
    Sequence(&'m str, Vec<Document>),
}

impl<'m> Section<'m> {
    /// Reads one; answers what is behind it, too.
    fn read(kind: u8, bytes: &'m [u8]) -> anyhow::Result<(Self, &'m [u8])> {
        let length = bytes.get(..4).context("a section without a length")?;
        let length = usize::try_from(number(length, 0)).unwrap_or(0);
        let (section, rest) = bytes.split_at_checked(length).context("a section that is cut")?;
        match kind {
            0 => Ok((Section::Body(section), rest)),
            1 => {
                let named = section.get(4..).context("a sequence without a name")?;
                let end = named.iter().position(|byte| *byte == 0).context("an endless name")?;
                let mut left = &named[end + 1..];
                let mut documents = Vec::new();
                while !left.is_empty() {
                    let length = usize::try_from(number(left.get(..4).context("a cut document")?, 0))?;
                    let (document, after) = left.split_at_checked(length).context("a cut document")?;
                    documents.push(bson::deserialize_from_slice(document)?);
                    left = after;
                }
                Ok((Section::Sequence(std::str::from_utf8(&named[..end])?, documents), rest))
            }
            other => bail!("sections of kind {other} are unknown to the forge"),
        }
    }
}

fn number(bytes: &[u8], at: usize) -> i32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, i32::from_le_bytes)
}
