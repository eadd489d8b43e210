//! A worker's health over HTTP: `/healthz` says whether its own loop goes round and nothing else, `/readyz`
//! whether it can work, `/metrics` what it counts, and `/drain` how far it is with leaving; a POST to it from
//! this machine begins that.

mod http;

use crate::sandbox::Sandbox;
use flakefarm_shared::blobs::Blobs;
use flakefarm_shared::message::BEAT;
use flakefarm_shared::metrics::catalogue::{
    ATTEMPTS_RUNNING, BEAT_AGE, DRAINING, JOBS_IN_HAND, SLOTS, SPOOL_BYTES, SPOOL_FILES, TROUBLE,
};
use flakefarm_shared::metrics::{self, Owner};
use flakefarm_shared::queue::Queue;
use flakefarm_shared::samples::Samples;
use flakefarm_shared::{Class, Digest, chain};
use http::{Answer, Method, Request};
use serde_json::{Map, Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

/// A loop that has not come round for so long stands still. A round takes a sign of life's patience and a
/// pause, whatever happens outside.
const STANDS_STILL: Duration = BEAT.saturating_mul(12);
/// For a server to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// For how long what servers said is said again: whoever asks often asks us, not them.
const KNOWN: Duration = Duration::from_secs(2);

/// The pulse of a worker's own loop.
#[derive(Debug)]
pub(crate) struct Pulse {
    round: Mutex<Instant>,
    sent: Mutex<Instant>,
}

impl Pulse {
    pub(crate) fn new() -> Self {
        Self { round: Mutex::new(Instant::now()), sent: Mutex::new(Instant::now()) }
    }

    /// The loop has come round.
    pub(crate) fn round(&self) {
        *self.round.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// A sign of life was sent.
    pub(crate) fn sent(&self) {
        *self.sent.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn since_round(&self) -> Duration {
        self.round.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    fn since_sent(&self) -> Duration {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// How a worker stands, at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) slots: u16,
    pub(crate) jobs: usize,
    pub(crate) attempts_running: u16,
    pub(crate) draining: bool,
    pub(crate) in_trouble: bool,
    /// Bytes and files.
    pub(crate) spooled: (u64, u64),
}

/// What a worker needs.
#[derive(Debug, Clone)]
pub(crate) struct Needs {
    pub(crate) queue: Queue,
    pub(crate) samples: Samples,
    pub(crate) blobs: Blobs,
    pub(crate) sandbox: Sandbox,
}

/// A worker as those see it who look after it.
pub(crate) struct Health {
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) needs: Needs,
    pub(crate) drain: CancellationToken,
    pub(crate) standing: Box<dyn Fn() -> Standing + Send + Sync>,
}

/// Answers until `end`.
pub(crate) async fn serve(listener: TcpListener, health: Health, end: CancellationToken) {
    if let Ok(address) = listener.local_addr() {
        info!(health.address = %address, "answers for its health");
    }
    let health = Arc::new(health);
    let ready = Arc::new(tokio::sync::Mutex::new(None));
    let answer = move |request: Request| {
        let (health, ready) = (health.clone(), ready.clone());
        async move { health.answer(&request, &ready).await }
    };
    http::serve(listener, answer, end).await;
}

/// What the servers said, and when.
type Known = tokio::sync::Mutex<Option<(Instant, bool, Map<String, Value>)>>;

impl Health {
    async fn answer(&self, request: &Request, ready: &Known) -> Answer {
        let reads = matches!(request.method, Method::Get | Method::Head);
        match request.path.as_str() {
            "/healthz" if reads => self.alive(),
            "/readyz" if reads => self.ready(ready).await,
            "/metrics" if reads => self.metrics(),
            "/drain" if reads => self.draining(200),
            // Whoever may begin this decides what the worker does: that is for its own machine (or pod).
            "/drain" if !request.from.is_loopback() => {
                Answer::refused(403, "a worker is told to drain from its own machine")
            }
            "/drain" => {
                self.drain.cancel();
                self.draining(202)
            }
            "/healthz" | "/readyz" | "/metrics" => Answer::refused(405, "GET it"),
            _ => Answer::refused(404, "there are /healthz, /readyz, /metrics and /drain"),
        }
    }

    fn alive(&self) -> Answer {
        let since = self.pulse.since_round();
        let (status, word) = if since < STANDS_STILL { (200, "ok") } else { (503, "its loop stands still") };
        let body = json!({
            "status": word,
            "version": env!("CARGO_PKG_VERSION"),
            "loop_seconds": since.as_secs(),
        });
        Answer::json(status, &body)
    }

    async fn ready(&self, known: &Known) -> Answer {
        let mut known = known.lock().await;
        let (well, mut said) = match &*known {
            Some((at, well, said)) if at.elapsed() < KNOWN => (*well, said.clone()),
            _ => {
                let (well, said) = self.needs.ask().await;
                *known = Some((Instant::now(), well, said.clone()));
                (well, said)
            }
        };
        let draining = (self.standing)().draining;
        said.insert("draining".to_owned(), Value::Bool(draining));
        Answer::json(if well && !draining { 200 } else { 503 }, &Value::Object(said))
    }

    fn metrics(&self) -> Answer {
        let standing = (self.standing)();
        SLOTS.set_whole(&[], u64::from(standing.slots));
        JOBS_IN_HAND.set_whole(&[], standing.jobs as u64);
        ATTEMPTS_RUNNING.set_whole(&[], u64::from(standing.attempts_running));
        DRAINING.set_whole(&[], u64::from(standing.draining));
        TROUBLE.set_whole(&[], u64::from(standing.in_trouble));
        SPOOL_BYTES.set_whole(&[], standing.spooled.0);
        SPOOL_FILES.set_whole(&[], standing.spooled.1);
        BEAT_AGE.set(&[], self.pulse.since_sent().as_secs_f64());
        let body = metrics::render(Owner::Worker);
        Answer { status: 200, content_type: metrics::CONTENT_TYPE, body }
    }

    fn draining(&self, status: u16) -> Answer {
        let standing = (self.standing)();
        let body = json!({
            "draining": standing.draining,
            "jobs": standing.jobs,
            "attempts_running": standing.attempts_running,
            "slots": standing.slots,
        });
        Answer::json(status, &body)
    }
}

impl Needs {
    async fn ask(&self) -> (bool, Map<String, Value>) {
        let marker = Digest::of(b"");
        let (queue, samples, blobs, engine) = tokio::join!(
            answer(self.queue.depth(Class::Bulk)),
            answer(self.samples.check()),
            answer(self.blobs.contains(&marker)),
            answer(self.sandbox.check()),
        );
        let said = [("queue", queue), ("samples", samples), ("blobs", blobs), ("engine", engine)];
        let well = said.iter().all(|(_, word)| word == "ok");
        (well, said.into_iter().map(|(of, word)| (of.to_owned(), Value::String(word))).collect())
    }
}

async fn answer<T, E: std::error::Error>(asked: impl Future<Output = Result<T, E>>) -> String {
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Ok(_)) => "ok".to_owned(),
        Ok(Err(error)) => chain(&error),
        Err(_) => format!("no answer within {} s", ANSWER.as_secs()),
    }
}
