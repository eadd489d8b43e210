//! What is told of sweeps and jobs to whoever collects traces. A span is built when what it tells of has
//! ended, from what is recorded anyway, and handed to a sink that the process may have; without one nothing
//! is built.
//!
//! A sweep's trace is its id, and so is a job's: whoever knows the id finds the trace and the log lines of
//! it, in any process and after any restart. The context travels in messages as `traceparent`, as a link: a
//! job outlives the moment in which it was published, and may be done more than once.

pub mod conventions;

use crate::ids::{JobId, SweepId};
use crate::{Digest, UnixMicros};
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use uuid::Uuid;

/// Events of one span; more are counted.
pub const MOST_EVENTS: usize = 128;

/// Where a span is, for those who link to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanContext {
    /// Of its trace.
    pub trace: [u8; 16],
    /// Its own.
    pub span: [u8; 8],
    /// Whether it is told of.
    pub sampled: bool,
}

impl SpanContext {
    /// Of a sweep.
    pub fn of_sweep(sweep: SweepId) -> Self {
        Self::of(sweep.0, "sweep", sampled(sweep))
    }

    /// Of a job's publication.
    pub fn of_job(job: JobId, publication: u32, sampled: bool) -> Self {
        Self::of(job.0, &format!("job {publication}"), sampled)
    }

    fn of(id: Uuid, what: &str, sampled: bool) -> Self {
        let digest = Digest::of(format!("{id} {what}").as_bytes());
        let mut span = [0; 8];
        hex::decode_to_slice(&digest.as_str()[..16], &mut span).expect("a digest is hexadecimal");
        // All zeros would be no span; that comes once in 2 ** 64.
        span[7] |= u8::from(span == [0; 8]);
        Self { trace: *id.as_bytes(), span, sampled }
    }
}

impl fmt::Display for SpanContext {
    /// As W3C's `traceparent`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        write!(f, "00-{}-{}-{flags:02x}", hex::encode(self.trace), hex::encode(self.span))
    }
}

impl FromStr for SpanContext {
    type Err = NoContext;

    fn from_str(text: &str) -> Result<Self, NoContext> {
        let parts: Vec<&str> = text.split('-').collect();
        let [version, trace, span, flags, ..] = parts.as_slice() else { return Err(NoContext) };
        let later = version.len() == 2 && *version != "ff" && *version != "00";
        if *version != "00" && !later || *version == "00" && parts.len() != 4 {
            return Err(NoContext);
        }
        let lower = |text: &&str| !text.bytes().any(|byte| byte.is_ascii_uppercase());
        let mut context = Self { trace: [0; 16], span: [0; 8], sampled: false };
        let mut bits = [0; 1];
        if ![trace, span, flags].into_iter().all(lower)
            || hex::decode_to_slice(trace, &mut context.trace).is_err()
            || hex::decode_to_slice(span, &mut context.span).is_err()
            || hex::decode_to_slice(flags, &mut bits).is_err()
            || context.trace == [0; 16]
            || context.span == [0; 8]
        {
            return Err(NoContext);
        }
        context.sampled = bits[0] & 1 == 1;
        Ok(context)
    }
}

/// It is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no traceparent")]
pub struct NoContext;

/// What an attribute may be.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// A number.
    Number(f64),
    /// Yes or no.
    Flag(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Value::Whole(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Value::Whole(i64::from(number))
    }
}

/// Names and values.
pub type Attributes = Vec<(&'static str, Value)>;

/// What somebody did: its role between processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// Nobody else waits for it.
    Internal,
    /// It took a message.
    Consumer,
}

/// Something that happened within a span.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanEvent {
    /// When.
    pub at: UnixMicros,
    /// What.
    pub name: &'static str,
    /// More of it.
    pub attributes: Attributes,
}

/// Something that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Where it is.
    pub context: SpanContext,
    /// What.
    pub name: String,
    /// Its role.
    pub kind: SpanKind,
    /// When it began.
    pub start: UnixMicros,
    /// When it ended.
    pub end: UnixMicros,
    /// What is known of it.
    pub attributes: Attributes,
    /// What happened meanwhile, at most [`MOST_EVENTS`].
    pub events: Vec<SpanEvent>,
    /// What else happened.
    pub dropped_events: u32,
    /// What it came from.
    pub links: Vec<SpanContext>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

impl Span {
    /// Adds what happened, or counts it.
    pub fn event(&mut self, event: SpanEvent) {
        if self.events.len() < MOST_EVENTS {
            self.events.push(event);
        } else {
            self.dropped_events = self.dropped_events.saturating_add(1);
        }
    }
}

/// Where spans go, and which.
struct Sink {
    spans: mpsc::Sender<Span>,
    /// The share of sweeps that are told of.
    share: f64,
    dropped: AtomicU64,
}

static SINK: OnceLock<Sink> = OnceLock::new();

/// From now on spans of this share of all sweeps (0 to 1) go to `spans`; those that it has no room for are
/// dropped. Only the first call counts.
pub fn collect(spans: mpsc::Sender<Span>, share: f64) {
    let _already_set = SINK.set(Sink { spans, share, dropped: AtomicU64::new(0) });
}

/// Whether anybody collects spans here.
pub fn is_on() -> bool {
    SINK.get().is_some()
}

/// Whether a sweep is among those that are told of: in every process with the same share alike.
pub fn sampled(sweep: SweepId) -> bool {
    SINK.get().is_some_and(|sink| is_among(sweep, sink.share))
}

fn is_among(sweep: SweepId, share: f64) -> bool {
    // The last bytes of an id are chance; the first are the time.
    let (_, low) = sweep.0.as_u64_pair();
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more digits")]
    let place = (low & 0x00ff_ffff_ffff_ffff) as f64 / (1_u64 << 56) as f64;
    place < share
}

/// Tells of what has ended.
pub fn tell(span: impl FnOnce() -> Span) {
    let Some(sink) = SINK.get() else { return };
    let span = span();
    if span.context.sampled && sink.spans.try_send(span).is_err() {
        sink.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// Spans that nobody had room for.
pub fn dropped() -> u64 {
    SINK.get().map_or(0, |sink| sink.dropped.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_travel_as_text() {
        let sweep = SweepId::new();
        let context = SpanContext { sampled: true, ..SpanContext::of_sweep(sweep) };
        let text = context.to_string();
        assert_eq!(text.len(), 55);
        assert!(text.contains(&sweep.0.simple().to_string()), "{text}");
        assert_eq!(text.parse(), Ok(context));
        let later = format!("cc{}-more", &text[2..]);
        assert_eq!(later.parse(), Ok(context), "what later versions add is passed over");
        let job = SpanContext::of_job(JobId::new(), 1, false);
        assert_eq!(job.to_string().parse(), Ok(job));
        for hostile in [
            "",
            "00",
            "00-00000000000000000000000000000000-0000000000000001-01",
            "00-00000000000000000000000000000001-0000000000000000-01",
            "ff-00000000000000000000000000000001-0000000000000001-01",
            "00-00000000000000000000000000000001-0000000000000001-01-more",
            "00-0000000000000000000000000000000A-0000000000000001-01",
            "00-1-1-01",
            "00-\u{e4}0000000000000000000000000000001-0000000000000001-01",
        ] {
            assert_eq!(hostile.parse::<SpanContext>(), Err(NoContext), "{hostile}");
        }
    }

    #[test]
    fn a_share_of_sweeps_is_that_share() {
        let among = |share: f64| {
            (0..4_000_u64).filter(move |n| {
                let id = Uuid::from_u64_pair(0, n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                is_among(SweepId(id), share)
            })
        };
        assert_eq!((among(0.0).count(), among(1.0).count()), (0, 4_000));
        assert!((900..1_100).contains(&among(0.25).count()));
    }

    #[test]
    fn events_of_one_span_are_bounded() {
        let mut span = Span {
            context: SpanContext::of_job(JobId::new(), 1, true),
            name: "job".to_owned(),
            kind: SpanKind::Consumer,
            start: 0,
            end: 1,
            attributes: Vec::new(),
            events: Vec::new(),
            dropped_events: 0,
            links: Vec::new(),
            error: None,
        };
        for at in 0..200 {
            span.event(SpanEvent { at, name: "a", attributes: Vec::new() });
        }
        assert_eq!((span.events.len(), span.dropped_events), (MOST_EVENTS, 72));
    }
}
