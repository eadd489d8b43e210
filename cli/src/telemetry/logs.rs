//! Log lines: as JSON on standard error, each with who wrote it and the ids of what it is about, and as
//! records for whoever collects them.

use flakefarm_shared::telemetry::Value;
use flakefarm_shared::{UnixMicros, now_micros};
use serde_json::{Map, json};
use std::fmt::Debug;
use std::io::Write as _;
use std::sync::{OnceLock, atomic::AtomicU64, atomic::Ordering};
use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;
use uuid::Uuid;

/// Bytes of one field that are kept.
const LONGEST: usize = 8 << 10;

/// One line.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) at: UnixMicros,
    pub(crate) level: Level,
    pub(crate) target: &'static str,
    pub(crate) message: String,
    /// Those of the spans around it first.
    pub(crate) fields: Vec<(&'static str, Value)>,
    /// Of the job that it is about, else of the sweep.
    pub(crate) trace: Option<[u8; 16]>,
}

impl Line {
    /// As OpenTelemetry counts.
    pub(crate) fn severity(&self) -> u64 {
        match self.level {
            Level::ERROR => 17,
            Level::WARN => 13,
            Level::INFO => 9,
            Level::DEBUG => 5,
            _ => 1,
        }
    }

    fn json(&self) -> String {
        let at = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.at) * 1_000).ok();
        let at = at.and_then(|at| at.format(&time::format_description::well_known::Rfc3339).ok());
        let mut object = Map::new();
        object.insert("timestamp".to_owned(), json!(at));
        object.insert("level".to_owned(), json!(self.level.as_str()));
        object.insert("target".to_owned(), json!(self.target));
        for (name, value) in own_ids() {
            object.insert((*name).to_owned(), json!(value));
        }
        object.insert("message".to_owned(), json!(self.message));
        for (name, value) in &self.fields {
            let value = match value {
                Value::Text(text) => json!(text),
                Value::Whole(number) => json!(number),
                Value::Number(number) => json!(number),
                Value::Flag(flag) => json!(flag),
            };
            object.insert((*name).to_owned(), value);
        }
        if let Some(trace) = self.trace {
            object.insert("trace_id".to_owned(), json!(Uuid::from_bytes(trace).simple().to_string()));
        }
        let mut line = serde_json::Value::Object(object).to_string();
        line.push('\n');
        line
    }
}

static OWN_IDS: OnceLock<Vec<(&'static str, String)>> = OnceLock::new();

/// Who writes: on every line from now on. Only the first call counts.
pub(crate) fn set_own_ids(ids: Vec<(&'static str, String)>) {
    let _already_set = OWN_IDS.set(ids);
}

pub(super) fn own_ids() -> &'static [(&'static str, String)] {
    OWN_IDS.get().map(Vec::as_slice).unwrap_or_default()
}

/// What a span or an event says.
#[derive(Debug, Default)]
struct Said {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Said {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::Text(text)) => self.message = text,
            (name, value) => {
                self.fields.retain(|(known, _)| *known != name);
                self.fields.push((name, value));
            }
        }
    }
}

/// Control characters move cursors and end lines: what others wrote does neither.
fn bounded(text: &str) -> Value {
    let mut kept: String =
        text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect();
    if kept.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|end| kept.is_char_boundary(*end)).unwrap_or(0);
        kept.truncate(end);
        kept.push('\u{2026}');
    }
    Value::Text(kept)
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, bounded(&format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, bounded(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::Whole(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Value::Number(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::Flag(value));
    }
}

/// Takes every line to standard error, to a collector, or both.
#[derive(Debug)]
pub(crate) struct Lines {
    to_stderr: bool,
    to_collector: Option<mpsc::Sender<Line>>,
}

/// Lines that nobody had room for.
static DROPPED: AtomicU64 = AtomicU64::new(0);

impl Lines {
    pub(crate) fn new(to_stderr: bool, to_collector: Option<mpsc::Sender<Line>>) -> Self {
        Self { to_stderr, to_collector }
    }
}

/// How many lines were dropped so far.
pub(super) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut said = Said::default();
        attributes.record(&mut said);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(said);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(said) = span.extensions_mut().get_mut::<Said>()
        {
            values.record(said);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut said = Said::default();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(of_span) = span.extensions().get::<Said>() {
                for (name, value) in &of_span.fields {
                    said.fields.retain(|(known, _)| known != name);
                    said.fields.push((name, value.clone()));
                }
            }
        }
        event.record(&mut said);
        let Said { message, fields } = said;
        let id = |wanted: &str| {
            let field = fields.iter().find(|(name, _)| *name == wanted);
            match field {
                Some((_, Value::Text(text))) => text.parse::<Uuid>().ok().map(|id| *id.as_bytes()),
                Some(_) | None => None,
            }
        };
        let trace = id("job.id").or_else(|| id("sweep.id"));
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        let line = Line { at: now_micros(), level, target, message, fields, trace };
        if self.to_stderr {
            // A reader that is gone is no reason to end.
            let _unread = std::io::stderr().lock().write_all(line.json().as_bytes());
        }
        // What sending says of itself is not sent: it would never end.
        let of_sending = ["hyper", "reqwest", "rustls", "h2"].iter().any(|name| target.starts_with(name));
        if let Some(collector) = self.to_collector.as_ref().filter(|_| !of_sending)
            && collector.try_send(line).is_err()
        {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt as _;

    #[test]
    fn a_line_has_the_ids_of_what_it_is_about() {
        let (sender, mut lines) = mpsc::channel(4);
        let subscriber = tracing_subscriber::registry().with(Lines::new(false, Some(sender)));
        let (job, sweep) = (Uuid::now_v7(), Uuid::now_v7());
        tracing::subscriber::with_default(subscriber, || {
            let _job = tracing::info_span!("job", job.id = %job, sweep.id = %sweep).entered();
            tracing::warn!(failures = 3, "said\u{1b}[2J of \"it\"");
        });
        let line = lines.try_recv().unwrap();
        assert_eq!(line.trace, Some(*job.as_bytes()));
        let json: serde_json::Value = serde_json::from_str(&line.json()).unwrap();
        assert_eq!(json["job.id"], job.to_string());
        assert_eq!(json["sweep.id"], sweep.to_string());
        assert_eq!(json["trace_id"], job.simple().to_string());
        assert_eq!((json["level"].as_str(), &json["failures"]), (Some("WARN"), &json!(3)));
        assert_eq!(json["message"], "said\u{fffd}[2J of \"it\"");
        assert_eq!(line.json().matches('\n').count(), 1);
    }

    #[test]
    fn a_field_is_bounded() {
        let Value::Text(text) = bounded(&"\u{e4}".repeat(LONGEST)) else { panic!("text is text") };
        assert!(text.len() <= LONGEST + 3 && text.ends_with('\u{2026}'));
    }
}
