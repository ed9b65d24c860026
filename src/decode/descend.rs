//! Leads the parser through an event, to the values that routes name.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::extract::Extracted;
use super::paths::Node;
use crate::dead_letter::{Reason, Rejection};
use crate::trace::TraceRef;

/// Visits the part of an event that lies on the way to a path's value.
pub(super) struct Descend<'p, 'x> {
    pub(super) node: &'p Node,
    pub(super) into: &'x mut Extracted,
    /// Refuse what no path begins with.
    pub(super) strict: bool,
}

impl<'de> DeserializeSeed<'de> for Descend<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'p> Descend<'p, '_> {
    /// The seed for the value of child `at`.
    fn value(&mut self, at: usize) -> ChildValue<'p, '_> {
        ChildValue { node: &self.node.children[at].1, into: self.into }
    }
}

impl<'de> Visitor<'de> for Descend<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(found) = map.next_key_seed(ChildKey { node: self.node, strict: self.strict })? {
            match found {
                Step::Child(at) => {
                    let (key, child) = &self.node.children[at];
                    if self.into.has_seen(child) && child.has_data && !self.into.only_traces {
                        let text = format!("the key {key:?} occurs twice");
                        return Err(self.into.out.stop(Rejection::new(Reason::DuplicateKey, text)));
                    }
                    map.next_value_seed(self.value(at))?;
                }
                Step::Unnamed => {
                    map.next_value::<IgnoredAny>()?;
                }
                Step::Unknown(key) => {
                    let text = format!("a native event has no field {key:?}");
                    return Err(self.into.out.stop(Rejection::new(Reason::BadEvent, text)));
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        for index in 0_usize.. {
            let more = match self.node.child(&index.to_string()) {
                Some(at) => seq.next_element_seed(self.value(at))?.is_some(),
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if let Some(slot) = self.node.trace
            && TraceRef::new(text.as_bytes()).is_some()
        {
            self.into.add_trace(slot, text);
        }
        Ok(())
    }
}

/// Which child of the node a key names.
struct ChildKey<'p> {
    node: &'p Node,
    strict: bool,
}

enum Step {
    Child(usize),
    Unnamed,
    Unknown(String),
}

impl<'de> DeserializeSeed<'de> for ChildKey<'_> {
    type Value = Step;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Step, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for ChildKey<'_> {
    type Value = Step;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Step, E> {
        Ok(match self.node.child(key) {
            Some(at) => Step::Child(at),
            None if self.strict => Step::Unknown(key.to_owned()),
            None => Step::Unnamed,
        })
    }
}

/// Takes the value of a node: transcodes it if a path ends here, descends otherwise.
struct ChildValue<'p, 'x> {
    node: &'p Node,
    into: &'x mut Extracted,
}

impl<'de> DeserializeSeed<'de> for ChildValue<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if !self.node.has_data || self.into.only_traces {
            let json = <&RawValue>::deserialize(deserializer)?;
            self.into.take_traces(self.node, json.get());
            return Ok(());
        }
        let Some((slot, keys)) = self.node.slot else {
            return Descend { node: self.node, into: self.into, strict: false }.deserialize(deserializer);
        };
        self.into.take_json([Some(slot), self.node.trace], keys, deserializer)?;
        if !self.node.children.is_empty() {
            self.into.fill_below(self.node, slot);
        }
        Ok(())
    }
}
