//! Defines a route's `yjs`: where the binary updates of a Yjs document are, and how they are kept.

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Violations;
use super::{KeyPath, Size, word};

/// `yjs = { update = "payload.update" }`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Yjs {
    /// Path to the update, in lib0 v1 encoding, which Yjs has by default.
    pub update: String,
    /// How JSON holds the bytes.
    #[serde(default, deserialize_with = "word")]
    pub encoding: YjsEncoding,
    /// The field that gets `updates`, an array, and `count`, its length.
    #[serde(default = "field")]
    pub field: String,
    /// Merge the stored updates into one when there are more than this.
    #[serde(default = "compact_above")]
    pub compact_above: u32,
    /// The largest update accepted.
    #[serde(default = "max_bytes", with = "Size")]
    pub max_bytes: ByteSize,
}

/// How JSON holds bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum YjsEncoding {
    /// As text in base64, padded or not.
    #[default]
    Base64,
    /// As an array of numbers from 0 to 255.
    Bytes,
}

fn field() -> String {
    "yjs".into()
}

fn compact_above() -> u32 {
    100
}

fn max_bytes() -> ByteSize {
    ByteSize::mib(1)
}

/// Fewer would compact at every write.
const MIN_COMPACT_ABOVE: u32 = 2;

/// A document has 16 MiB, and must hold more than one update.
const MAX_BYTES: ByteSize = ByteSize::mib(4);

impl Yjs {
    /// Reports what is wrong with it.
    pub(super) fn check(&self, path: &KeyPath, found: &mut Violations) {
        let at_least = format!("must be at least {MIN_COMPACT_ABOVE}");
        found.require(self.compact_above >= MIN_COMPACT_ABOVE, path.join("compact_above"), at_least);
        let range = self.max_bytes.as_u64() > 0 && self.max_bytes <= MAX_BYTES;
        found.require(range, path.join("max_bytes"), "must be from 1 byte to 4MiB");
    }
}
