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

/// What a command may weigh, unless its only statement is larger. The driver makes copy upon copy of a command, of
/// which no bound knows; and another round trip is little beside the time that so many bytes take.
const COMMAND_BYTES: usize = 1 << 20;

/// Bytes of a command besides its statements, amply.
const COMMAND_ROOM: usize = 16 * 1024;

/// A command that statements are still added to.
pub(super) struct BulkCommand {
    body: Vec<u8>,
    start: usize,
    array: usize,
    statements: usize,
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
        BulkCommand { body, start, array, statements: 0 }
    }

    /// Whether a statement of that size fits. A command without any takes one of any size.
    pub(super) fn has_room(&self, statement: usize, limits: CommandLimits) -> bool {
        self.statements == 0
            || (self.statements < limits.max_statements
                && self.body.len() + statement + COMMAND_ROOM <= limits.max_bytes.min(COMMAND_BYTES))
    }

    /// Adds an encoded statement, or a document to insert.
    pub(super) fn add(&mut self, statement: &[u8]) {
        let value = ValueRef { kind: ElementType::EmbeddedDocument, bytes: statement };
        raw::write_indexed(&mut self.body, self.statements, value);
        self.statements += 1;
    }

    /// The encoded command.
    pub(super) fn close(mut self) -> Vec<u8> {
        end_document(&mut self.body, self.array);
        end_document(&mut self.body, self.start);
        self.body
    }
}
