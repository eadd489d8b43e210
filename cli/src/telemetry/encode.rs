//! Spans and log records as OpenTelemetry's protocol has them: protocol buffers, written field by field. The
//! numbers are those of `opentelemetry/proto` 1.x, in which they never change.

use super::logs::Line;
use flakefarm_shared::telemetry::conventions::SCHEMA_URL;
use flakefarm_shared::telemetry::{Span, SpanContext, SpanEvent, SpanKind, Value};

/// A message of protocol buffers that is being written.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    /// A field's number and how it is written: 0 as a varint, 1 in 8 bytes, 2 with its length, 5 in 4 bytes.
    fn tag(&mut self, field: u64, wire: u64) {
        self.varint(field << 3 | wire);
    }

    fn number(mut self, field: u64, number: u64) -> Self {
        if number != 0 {
            self.tag(field, 0);
            self.varint(number);
        }
        self
    }

    fn fixed64(mut self, field: u64, bits: u64) -> Self {
        self.tag(field, 1);
        self.0.extend(bits.to_le_bytes());
        self
    }

    fn fixed32(mut self, field: u64, bits: u32) -> Self {
        self.tag(field, 5);
        self.0.extend(bits.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.tag(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    fn text(self, field: u64, text: &str) -> Self {
        if text.is_empty() { self } else { self.bytes(field, text.as_bytes()) }
    }

    fn message(self, field: u64, message: Message) -> Self {
        self.bytes(field, &message.0)
    }

    fn each<T>(self, field: u64, items: impl IntoIterator<Item = T>, write: impl Fn(T) -> Message) -> Self {
        items.into_iter().fold(self, |message, item| message.message(field, write(item)))
    }
}

/// An `ExportTraceServiceRequest`.
pub(super) fn traces(resource: &[(String, String)], spans: &[Span]) -> Vec<u8> {
    let of_scope = Message::default().message(1, scope()).each(2, spans, span).text(3, SCHEMA_URL);
    request(resource, of_scope)
}

/// An `ExportLogsServiceRequest`.
pub(super) fn logs(resource: &[(String, String)], lines: &[Line]) -> Vec<u8> {
    let of_scope = Message::default().message(1, scope()).each(2, lines, line).text(3, SCHEMA_URL);
    request(resource, of_scope)
}

/// Both requests have the same shape around what they carry.
fn request(resource: &[(String, String)], of_scope: Message) -> Vec<u8> {
    let resource = Message::default().each(1, resource, |(key, value)| {
        Message::default().text(1, key).message(2, any(&Value::Text(value.clone())))
    });
    let of_resource = Message::default().message(1, resource).message(2, of_scope).text(3, SCHEMA_URL);
    Message::default().message(1, of_resource).0
}

fn scope() -> Message {
    Message::default().text(1, "flakefarm").text(2, env!("CARGO_PKG_VERSION"))
}

fn span(span: &Span) -> Message {
    let kind = match span.kind {
        SpanKind::Internal => 1,
        SpanKind::Consumer => 5,
    };
    let status = match &span.error {
        Some(error) => Message::default().text(2, error).number(3, 2),
        None => Message::default(),
    };
    Message::default()
        .bytes(1, &span.context.trace)
        .bytes(2, &span.context.span)
        .text(5, &span.name)
        .number(6, kind)
        .fixed64(7, nanos(span.start))
        .fixed64(8, nanos(span.end))
        .each(9, &span.attributes, |(key, value)| attribute(key, value))
        .each(11, &span.events, event)
        .number(12, u64::from(span.dropped_events))
        .each(13, &span.links, link)
        .message(15, status)
        .fixed32(16, u32::from(span.context.sampled))
}

fn event(event: &SpanEvent) -> Message {
    Message::default().fixed64(1, nanos(event.at)).text(2, event.name).each(
        3,
        &event.attributes,
        |(key, value)| attribute(key, value),
    )
}

fn link(context: &SpanContext) -> Message {
    let flags = u32::from(context.sampled);
    Message::default().bytes(1, &context.trace).bytes(2, &context.span).fixed32(6, flags)
}

fn line(line: &Line) -> Message {
    let message = Message::default()
        .fixed64(1, nanos(line.at))
        .number(2, line.severity())
        .text(3, line.level.as_str())
        .message(5, any(&Value::Text(line.message.clone())))
        .each(6, &line.fields, |(key, value)| attribute(key, value));
    match line.trace {
        Some(trace) => message.bytes(9, &trace),
        None => message,
    }
    .fixed64(11, nanos(line.at))
}

fn attribute(key: &str, value: &Value) -> Message {
    Message::default().text(1, key).message(2, any(value))
}

fn any(value: &Value) -> Message {
    let mut message = Message::default();
    match value {
        // Empty text is text, too.
        Value::Text(text) => return message.bytes(1, text.as_bytes()),
        Value::Flag(flag) => {
            message.tag(2, 0);
            message.varint(u64::from(*flag));
        }
        Value::Whole(number) => {
            message.tag(3, 0);
            message.varint(number.cast_unsigned());
        }
        Value::Number(number) => return message.fixed64(4, number.to_bits()),
    }
    message
}

fn nanos(micros: i64) -> u64 {
    u64::try_from(micros).unwrap_or_default().saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flakefarm_shared::{JobId, SweepId};
    use uuid::Uuid;

    #[test]
    fn bytes_are_those_that_the_reference_reads() {
        let id = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let context = SpanContext::of_job(JobId(id), 1, true);
        let sweep = SpanContext { sampled: true, ..SpanContext::of_sweep(SweepId(id)) };
        let spans = [Span {
            context,
            name: "run job".to_owned(),
            kind: SpanKind::Consumer,
            start: 1_000_000,
            end: 2_000_000,
            attributes: vec![
                ("a", "b".into()),
                ("n", Value::Whole(-1)),
                ("x", Value::Number(0.5)),
                ("t", Value::Flag(false)),
                ("e", "".into()),
            ],
            events: vec![SpanEvent {
                at: 1_500_000,
                name: "attempt",
                attributes: vec![("i", 300_u32.into())],
            }],
            dropped_events: 7,
            links: vec![sweep],
            error: Some("no".to_owned()),
        }];
        let resource = [("service.name".to_owned(), "flakefarm-worker".to_owned())];
        let request = traces(&resource, &spans);
        // Read field by field, as any reader of protocol buffers does.
        let of = |bytes: &[u8], wanted: u64| {
            fields(bytes)
                .into_iter()
                .filter(|(field, _)| *field == wanted)
                .map(|(_, value)| value)
                .collect::<Vec<_>>()
        };
        let one = |bytes: &[u8], wanted: u64| of(bytes, wanted).remove(0);
        let of_resource = one(&request, 1);
        let key_value = one(&one(&of_resource, 1), 1);
        assert_eq!(one(&key_value, 1), b"service.name");
        assert_eq!(one(&one(&key_value, 2), 1), b"flakefarm-worker");
        let span = one(&one(&of_resource, 2), 2);
        assert_eq!((one(&span, 1), one(&span, 2)), (context.trace.to_vec(), context.span.to_vec()));
        assert_eq!((one(&span, 5), one(&span, 6)), (b"run job".to_vec(), vec![5]));
        assert_eq!(one(&span, 7), 1_000_000_000_u64.to_le_bytes());
        assert_eq!(one(&span, 8), 2_000_000_000_u64.to_le_bytes());
        let values: Vec<Vec<(u64, Vec<u8>)>> =
            of(&span, 9).iter().map(|pair| fields(&one(pair, 2))).collect();
        let minus_one = [vec![0xff; 9], vec![1]].concat();
        let expected = [
            vec![(1, b"b".to_vec())],
            vec![(3, minus_one)],
            vec![(4, 0.5_f64.to_le_bytes().to_vec())],
            vec![(2, vec![0])],
            vec![(1, Vec::new())],
        ];
        assert_eq!(values, expected);
        let event = one(&span, 11);
        assert_eq!(one(&event, 2), b"attempt");
        assert_eq!(one(&one(&one(&event, 3), 2), 3), [0xac, 0x02]);
        assert_eq!(one(&span, 12), [7]);
        assert_eq!(one(&one(&span, 13), 1), sweep.trace);
        assert_eq!((one(&one(&span, 15), 2), one(&one(&span, 15), 3)), (b"no".to_vec(), vec![2]));
        assert_eq!(one(&span, 16), [1, 0, 0, 0]);
    }

    /// The fields of a message, in their order: number and bytes.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn varint(bytes: &mut &[u8]) -> (u64, Vec<u8>) {
            let end = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
            let (raw, rest) = bytes.split_at(end);
            *bytes = rest;
            let number = raw.iter().rev().fold(0_u64, |number, byte| number << 7 | u64::from(byte & 0x7f));
            (number, raw.to_vec())
        }
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let (tag, _) = varint(&mut bytes);
            let length = match tag & 7 {
                0 => {
                    found.push((tag >> 3, varint(&mut bytes).1));
                    continue;
                }
                1 => 8,
                2 => usize::try_from(varint(&mut bytes).0).unwrap(),
                5 => 4,
                other => panic!("wire type {other}"),
            };
            let (value, rest) = bytes.split_at(length);
            found.push((tag >> 3, value.to_vec()));
            bytes = rest;
        }
        found
    }
}
