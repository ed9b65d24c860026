//! Defines W3C trace context: the traces that an event, a write or a dead letter belongs to.
//! <https://www.w3.org/TR/trace-context/>

use std::fmt;

/// Characters of a `traceparent`.
pub const LEN: usize = 55;

/// Traces that are kept of one write.
const KEPT: usize = 4;

/// A valid `traceparent`, borrowed: version, trace id, parent id and flags in lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceRef<'a>(&'a [u8; LEN]);

/// [`TraceRef`], owned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Traceparent([u8; LEN]);

impl<'a> TraceRef<'a> {
    /// The `traceparent` that a text is; none, if it is not a valid one. What a later version may append is not known
    /// here, so such a text is not valid.
    #[must_use]
    pub fn new(text: &'a [u8]) -> Option<Self> {
        let bytes: &[u8; LEN] = text.try_into().ok()?;
        let (version, trace, parent, flags) = (&bytes[..2], &bytes[3..35], &bytes[36..52], &bytes[53..]);
        let is_hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let is_zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
        let valid = [2, 35, 52].into_iter().all(|at| bytes[at] == b'-')
            && [version, trace, parent, flags].into_iter().all(is_hex)
            && version != b"ff"
            && !is_zero(trace)
            && !is_zero(parent);
        valid.then_some(TraceRef(bytes))
    }

    /// The text, as bytes.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }
}

impl From<TraceRef<'_>> for Traceparent {
    fn from(trace: TraceRef<'_>) -> Self {
        Traceparent(*trace.0)
    }
}

impl Traceparent {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The traces of the events that one write stands for: the latest few. Without any it is a pointer.
#[derive(Debug, Default)]
pub struct Traces(Option<Box<KeptTraces>>);

#[derive(Debug)]
struct KeptTraces {
    events: u64,
    latest: Vec<Traceparent>,
}

impl Traces {
    /// Adds the trace of one more event, if it has one.
    pub fn add(&mut self, trace: Option<TraceRef<'_>>) {
        let Some(trace) = trace.map(Traceparent::from) else { return };
        let empty = || Box::new(KeptTraces { events: 0, latest: Vec::with_capacity(KEPT) });
        let kept = self.0.get_or_insert_with(empty);
        kept.events += 1;
        // Mostly the spans of one trace come one after another, or one span has several events.
        if kept.latest.contains(&trace) {
            return;
        }
        if kept.latest.len() == KEPT {
            kept.latest.remove(0);
        }
        kept.latest.push(trace);
    }

    /// How many events there are traces of, and the latest traces; None where there are none.
    #[must_use]
    pub fn kept(&self) -> Option<(u64, &[Traceparent])> {
        self.0.as_ref().map(|kept| (kept.events, &*kept.latest))
    }

    /// The latest trace.
    #[must_use]
    pub fn latest(&self) -> Option<Traceparent> {
        self.0.as_ref()?.latest.last().copied()
    }

    /// Bytes they take in memory besides the pointer.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self.0 {
            Some(_) => size_of::<KeptTraces>() + KEPT * LEN,
            None => 0,
        }
    }
}

/// Whether anything is logged of traces, so that it is of use to keep them.
#[must_use]
pub fn is_logged() -> bool {
    tracing::enabled!(tracing::Level::DEBUG)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_valid_form_is_taken() {
        for text in [VALID, &VALID.replace("00-4b", "cc-4b"), &VALID.replace("-01", "-ff")] {
            let trace = TraceRef::new(text.as_bytes()).map(Traceparent::from);
            assert_eq!(trace.unwrap().as_str(), text);
        }
    }

    #[test]
    fn anything_else_is_not() {
        let zero_trace = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        let zero_parent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", "0".repeat(16));
        for text in [
            "",
            "00",
            &VALID[..54],
            &format!("{VALID}0"),
            &format!("{VALID}-more"),
            &format!(" {}", &VALID[..54]),
            &VALID.to_uppercase(),
            &VALID.replace("00-4b", "ff-4b"),
            &VALID.replace("-01", "-0g"),
            &VALID.replace('-', "_"),
            &VALID.replace("b7-01", "b-701"),
            &VALID.replace("4736", "473é")[..55],
            &zero_trace,
            &zero_parent,
        ] {
            assert_eq!(TraceRef::new(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn the_latest_few_traces_of_a_write_are_kept() {
        let mut traces = Traces::default();
        traces.add(None);
        assert_eq!((traces.bytes(), traces.latest()), (0, None));
        let span = |n: u8| VALID.replace("-01", &format!("-{n:02x}"));
        for n in [1, 1, 2, 3, 4, 2, 5] {
            traces.add(TraceRef::new(span(n).as_bytes()));
        }
        let kept = traces.0.as_ref().unwrap();
        let latest: Vec<&str> = kept.latest.iter().map(Traceparent::as_str).collect();
        assert_eq!((kept.events, latest), (7, [2, 3, 4, 5].map(span).iter().map(String::as_str).collect()));
        assert_eq!(traces.latest().unwrap().as_str(), span(5));
        assert_eq!(size_of::<Traces>(), size_of::<usize>());
    }
}
