//! Encodes bulk write commands, `insert`, `update` and `delete`: each statement as it is added.

use bson::spec::ElementType;

use crate::raw::{self, ValueRef, begin_document, end_document};

/// What the server accepts in one command, from its `hello`.
#[derive(Debug, Clone, Copy)]
pub struct CommandLimits {
    /// Bytes of one command; its batch is one BSON document here.
    pub max_bytes: usize,
    /// Statements of one command.
    pub max_statements: usize,
}

/// The kinds of command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatementKind {
    /// `insert`
    Insert,
    /// `update`
    Update,
    /// `delete`
    Delete,
}

impl StatementKind {
    fn names(self) -> (&'static str, &'static str) {
        match self {
            StatementKind::Insert => ("insert", "documents"),
            StatementKind::Update => ("update", "updates"),
            StatementKind::Delete => ("delete", "deletes"),
        }
    }
}

/// What a command may weigh, unless its only statement is larger. The driver makes copy upon copy of a command; and another
/// round trip is little beside the time that so many bytes take.
pub(crate) const COMMAND_BYTES: usize = 1 << 20;

/// Bytes of a command besides its statements, amply.
const COMMAND_ROOM: usize = 16 * 1024;

/// A command that statements are still added to.
pub(super) struct BulkCommand {
    body: Vec<u8>,
    start: usize,
    array: usize,
    statements: usize,
    /// Where the last statement begins, its key before it.
    last: usize,
}

impl BulkCommand {
    /// A command to one collection, without statements.
    pub(super) fn new(kind: StatementKind, collection: &str, ordered: bool, write_concern: &[u8]) -> Self {
        let (command, statements) = kind.names();
        let mut body = Vec::new();
        let start = begin_document(&mut body);
        raw::write_text(&mut body, command, collection);
        raw::write_bool(&mut body, "ordered", ordered);
        let concern = ValueRef { kind: ElementType::EmbeddedDocument, bytes: write_concern };
        raw::write(&mut body, "writeConcern", concern);
        raw::write_key(&mut body, ElementType::Array, statements);
        let array = begin_document(&mut body);
        BulkCommand { last: body.len(), body, start, array, statements: 0 }
    }

    /// Makes room for a statement of about that size and for what the driver adds, without doubling what is there.
    pub(super) fn reserve(&mut self, statement: usize) {
        if statement + COMMAND_ROOM > self.body.capacity() - self.body.len() && statement > self.body.len() {
            self.body.reserve_exact(statement + COMMAND_ROOM);
        }
    }

    /// Adds the statement, or the document to insert, that `encode` writes; it may say that there is none.
    pub(super) fn add(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let before = self.body.len();
        raw::write_index_key(&mut self.body, ElementType::EmbeddedDocument, self.statements);
        if !encode(&mut self.body) {
            self.body.truncate(before);
            return false;
        }
        (self.last, self.statements) = (before, self.statements + 1);
        true
    }

    /// Whether there is no room for another statement of so many bytes. A command takes a first one of any size.
    pub(super) fn is_full(&self, statement: usize, limits: CommandLimits) -> bool {
        self.statements > 0
            && (self.statements >= limits.max_statements
                || self.body.len() + statement + COMMAND_ROOM > limits.max_bytes.min(COMMAND_BYTES))
    }

    /// Whether the last statement is one too many.
    pub(super) fn is_over(&self, limits: CommandLimits) -> bool {
        self.statements > 1 && self.body.len() + COMMAND_ROOM > limits.max_bytes.min(COMMAND_BYTES)
    }

    /// Moves the last statement to a command that has none.
    pub(super) fn move_last(&mut self, to: &mut BulkCommand) {
        let statement = &self.body[self.last..];
        // Behind the type, and the number that is its key.
        let key = statement.iter().skip(1).position(|byte| *byte == 0).map_or(0, |nul| nul + 2);
        let statement = &statement[key..];
        to.reserve(statement.len());
        to.add(|out| {
            out.extend_from_slice(statement);
            true
        });
        self.body.truncate(self.last);
        self.statements -= 1;
    }

    /// The encoded command.
    pub(super) fn close(mut self) -> Vec<u8> {
        end_document(&mut self.body, self.array);
        end_document(&mut self.body, self.start);
        self.body
    }
}
