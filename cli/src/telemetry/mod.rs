//! What this process says of itself: log lines, and spans and lines for a collector that speaks
//! OpenTelemetry's protocol over HTTP. Collectors are named by the variables of that standard
//! (`OTEL_EXPORTER_OTLP_ENDPOINT` and others); without one nothing is collected.
//!
//! Written by hand instead of taken from OpenTelemetry's crates: spans are built when what they tell of has
//! ended, with ids that follow from those of sweeps and jobs, which is what their SDK is made to take away;
//! and all that was left of it is one request with a few dozen fields.

mod encode;
mod logs;
mod send;

pub(crate) use logs::set_own_ids;

use crate::args::Command;
use crate::say::say;
use flakefarm_shared::telemetry::{self, Span};
use logs::{Line, Lines};
use send::{Collector, Settings};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// Spans and lines that may wait, each.
const WAITING: usize = 4_096;
/// For the last of them to be sent when the process ends.
const GOODBYE: Duration = Duration::from_secs(5);

/// What is to be sent, before there is a runtime to send it.
pub(crate) struct Unsent(Option<(Settings, mpsc::Receiver<Span>, mpsc::Receiver<Line>)>);

/// Sends until it is told to end.
pub(crate) struct Sending(Option<(JoinHandle<()>, CancellationToken)>);

/// Sets up what is logged and collected. Roles log their life; commands speak through their own output and
/// log only warnings.
pub(crate) fn init(command: &Command) -> Unsent {
    let (default, service) = match command {
        Command::Coordinator(_) => ("info,sqlx=warn,lapin=error", "flakefarm-coordinator"),
        Command::Worker(_) => ("info,sqlx=warn,lapin=error", "flakefarm-worker"),
        // What a broker refuses is said by whoever asked.
        _ => ("error,lapin=off", "flakefarm"),
    };
    let filter = || EnvFilter::try_from_env("FLAKEFARM_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let lookup = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let settings = Settings::of(&lookup, service).unwrap_or_else(|why| {
        say(format!("warning: nothing is collected: {why}"));
        None
    });
    let (lines, taken_lines) = mpsc::channel(WAITING);
    let unsent = settings.map(|settings| {
        let (spans, taken_spans) = mpsc::channel(WAITING);
        if settings.traces.is_some() {
            telemetry::collect(spans, settings.share);
        }
        (settings, taken_spans, taken_lines)
    });
    let collected = unsent.as_ref().is_some_and(|(settings, _, _)| settings.logs.is_some()).then_some(lines);
    let json = std::env::var("FLAKEFARM_LOG_FORMAT").is_ok_and(|format| format == "json");
    let text = (!json).then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .log_internal_errors(false)
            .with_ansi(false)
            .with_filter(filter())
    });
    let lines = (json || collected.is_some()).then(|| Lines::new(json, collected).with_filter(filter()));
    tracing_subscriber::registry().with(text).with(lines).init();
    Unsent(unsent)
}

impl Unsent {
    /// Begins to send. To be called within the runtime.
    pub(crate) fn start(self) -> Sending {
        Sending(self.0.and_then(|(settings, spans, lines)| {
            let end = CancellationToken::new();
            match Collector::new(settings) {
                Ok(collector) => Some((tokio::spawn(collector.run(spans, lines, end.clone())), end)),
                Err(error) => {
                    say(format!("warning: nothing is collected: {}", flakefarm_shared::chain(&error)));
                    None
                }
            }
        }))
    }
}

impl Sending {
    /// Sends what is left, for a few seconds.
    pub(crate) async fn finish(self) {
        let Some((sending, end)) = self.0 else { return };
        end.cancel();
        // What a collector that is away does not take is lost.
        drop(tokio::time::timeout(GOODBYE, sending).await);
    }
}
