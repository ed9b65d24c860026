//! Entries of a stream as events: one of their fields, or all of them as a JSON object of strings.

use redis::Value;

use super::id::Id;
use crate::source::Window;
use crate::source::error::SourceError;

/// What of an entry is the event.
#[derive(Debug, Clone)]
pub(super) enum Form {
    /// The field of this name.
    Field(Vec<u8>),
    /// All fields.
    Flat,
}

/// An entry.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: Id,
    /// The event; of an entry that has none, its fields.
    pub(super) event: Vec<u8>,
    pub(super) is_malformed: bool,
}

/// Reads what `XRANGE` answers. Entries that are gone, as a pending list may have them, are left out.
pub(super) fn entries(reply: Value, form: &Form) -> Result<Vec<Entry>, SourceError> {
    let items = match reply {
        Value::Array(items) => items,
        Value::Nil => Vec::new(),
        _ => return Err(unexpected()),
    };
    items.into_iter().filter_map(|item| entry(item, form).transpose()).collect()
}

/// Reads what `XREADGROUP` answers of its one stream.
pub(super) fn of_group(reply: Value, form: &Form) -> Result<Vec<Entry>, SourceError> {
    let Value::Array(streams) = reply else { return Ok(Vec::new()) };
    let Some(Value::Array(mut stream)) = streams.into_iter().next() else { return Err(unexpected()) };
    entries(stream.pop().ok_or_else(unexpected)?, form)
}

fn entry(item: Value, form: &Form) -> Result<Option<Entry>, SourceError> {
    let Value::Array(parts) = item else { return Err(unexpected()) };
    let Ok([Value::BulkString(id), fields]) = <[Value; 2]>::try_from(parts) else { return Err(unexpected()) };
    let id = std::str::from_utf8(&id).ok().and_then(Id::parse).ok_or_else(unexpected)?;
    let fields = match fields {
        Value::Array(fields) => fields,
        Value::Nil => return Ok(None),
        _ => return Err(unexpected()),
    };
    let mut pairs = Vec::with_capacity(fields.len() / 2);
    let mut fields = fields.into_iter();
    while let (Some(Value::BulkString(name)), Some(Value::BulkString(value))) = (fields.next(), fields.next())
    {
        match form {
            Form::Field(wanted) if *wanted == name => {
                return Ok(Some(Entry { id, event: value, is_malformed: false }));
            }
            _ => pairs.push((name, value)),
        }
    }
    Ok(Some(Entry { id, event: flat(&pairs), is_malformed: matches!(form, Form::Field(_)) }))
}

fn unexpected() -> SourceError {
    SourceError::Lost("Redis answers with what is no entry of a stream".into())
}

/// A JSON object of strings. Bytes that are no UTF-8 stay as they are: whoever decodes it says so.
fn flat(pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let bytes: usize = pairs.iter().map(|(name, value)| name.len() + value.len() + 6).sum();
    let mut object = Vec::with_capacity(bytes + 2);
    object.push(b'{');
    for (at, (name, value)) in pairs.iter().enumerate() {
        if at > 0 {
            object.push(b',');
        }
        quote(&mut object, name);
        object.push(b':');
        quote(&mut object, value);
    }
    object.push(b'}');
    object
}

fn quote(out: &mut Vec<u8>, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', *byte]),
            0..0x20 => {
                out.extend(b"\\u00");
                out.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
}

/// Entries, whose ids all fit, as a window.
pub(super) fn window(entries: Vec<Entry>) -> Window {
    let (mut offsets, mut events) = (Vec::with_capacity(entries.len()), Vec::with_capacity(entries.len()));
    let mut malformed = Vec::new();
    for entry in entries {
        let offset = entry.id.nearest();
        if entry.is_malformed {
            malformed.push(offset);
        }
        offsets.push(offset);
        events.push(entry.event);
    }
    Window::sparse(offsets, events, malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn reply(id: &str, fields: &[&str]) -> Value {
        let fields = Value::Array(fields.iter().map(|field| bulk(field)).collect());
        Value::Array(vec![Value::Array(vec![bulk(id), fields])])
    }

    fn read(fields: &[&str], form: &Form) -> (String, bool) {
        let mut entries = entries(reply("5-1", fields), form).unwrap();
        let entry = entries.pop().unwrap();
        assert_eq!(entry.id.to_string(), "5-1");
        (String::from_utf8(entry.event).unwrap(), entry.is_malformed)
    }

    #[test]
    fn the_event_is_one_field_or_all_of_them() {
        let field = Form::Field(b"event".to_vec());
        assert_eq!(read(&["a", "1", "event", "{}"], &field), ("{}".into(), false));
        assert_eq!(read(&["event", "1", "event", "2"], &field), ("1".into(), false), "the first counts");
        assert_eq!(read(&["a", "1"], &field), (r#"{"a":"1"}"#.into(), true));
        let (text, malformed) = read(&["a\"\\", "\u{1}\nü", "", "2"], &Form::Flat);
        assert!(!malformed);
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed, serde_json::json!({"a\"\\": "\u{1}\nü", "": "2"}));
    }

    #[test]
    fn entries_that_are_gone_are_left_out_and_nonsense_is_refused() {
        let gone = Value::Array(vec![Value::Array(vec![bulk("5-1"), Value::Nil])]);
        assert!(entries(gone, &Form::Flat).unwrap().is_empty());
        assert!(entries(Value::Nil, &Form::Flat).unwrap().is_empty());
        assert!(entries(Value::Int(1), &Form::Flat).is_err());
        assert!(entries(reply("5", &[]), &Form::Flat).is_err());
        assert!(of_group(Value::Nil, &Form::Flat).unwrap().is_empty());
        let of_one = Value::Array(vec![Value::Array(vec![bulk("q"), reply("5-1", &["a", "b"])])]);
        assert_eq!(of_group(of_one, &Form::Flat).unwrap().len(), 1);
    }

    #[test]
    fn a_window_keeps_offsets_and_knows_what_is_no_event() {
        let field = Form::Field(b"event".to_vec());
        let items = [reply("5-1", &["event", "x"]), reply("9-0", &["y", "z"])];
        let both = items.into_iter().flat_map(|item| entries(item, &field).unwrap()).collect();
        let window = window(both);
        let offsets: Vec<_> = window.iter().map(|(offset, _)| offset).collect();
        assert_eq!(offsets, [5 << 20 | 1, 9 << 20]);
        assert_eq!((window.end(), window.len()), ((9 << 20) + 1, 2));
        assert!(!window.is_malformed(offsets[0]) && window.is_malformed(offsets[1]));
    }
}
