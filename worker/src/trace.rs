//! What is told of a job to whoever collects traces: one span, its attempts as events.

use crate::finished::{Finished, How};
use flakefarm_shared::telemetry::conventions as names;
use flakefarm_shared::telemetry::{self, Attributes, Span, SpanContext, SpanEvent, SpanKind, Value};
use flakefarm_shared::{AttemptEnd, AttemptRecord, Class, JobId, Outcome, SweepId, UnixMicros, WorkerId};

/// Which job it was, before it is known what came of it.
#[derive(Debug, Clone)]
pub(crate) struct Begun {
    pub(crate) job: JobId,
    pub(crate) sweep: SweepId,
    pub(crate) publication: u32,
    pub(crate) class: Class,
    pub(crate) worker: WorkerId,
    pub(crate) at: UnixMicros,
    /// What its message came with.
    pub(crate) from: Option<SpanContext>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Made {
    task: &'static str,
    result: &'static str,
    error: Option<String>,
    attempts: Vec<AttemptRecord>,
}

impl Made {
    /// What was made since `at`: earlier publications told of theirs.
    pub(crate) fn of(finished: &Finished, at: UnixMicros) -> Self {
        let (result, error) = match &finished.how {
            How::Done => ("success", None),
            How::HandedBack(None) => ("cancellation", None),
            How::HandedBack(Some(error)) | How::Retryable(error) => ("error", Some(error.to_string())),
            How::Refused(refusal) => ("failure", Some(refusal.message.clone())),
        };
        let attempts = finished.report.iter().flat_map(|report| &report.attempts);
        let task = match &finished.report {
            Some(report) if report.listing.is_some() => "list",
            Some(_) | None => "run",
        };
        let attempts = attempts.filter(|attempt| attempt.started_at >= at).cloned().collect();
        Self { task, result, error, attempts }
    }
}

/// The span of a job that has ended.
pub(crate) fn span(begun: &Begun, made: Made, end: UnixMicros) -> Span {
    // Who published it decides; where it does not say, everybody decides alike.
    let sampled = begun.from.map_or_else(|| telemetry::sampled(begun.sweep), |from| from.sampled);
    let mut span = Span {
        context: SpanContext::of_job(begun.job, begun.publication, sampled),
        name: format!("{} job", made.task),
        kind: SpanKind::Consumer,
        start: begun.at,
        end,
        attributes: vec![
            (names::TASK_NAME, made.task.into()),
            (names::TASK_RUN_ID, begun.job.to_string().into()),
            (names::TASK_RUN_RESULT, made.result.into()),
            (names::WORKER_ID, begun.worker.0.clone().into()),
            (names::MESSAGING_SYSTEM, "rabbitmq".into()),
            (names::MESSAGING_DESTINATION, begun.class.word().into()),
            (names::MESSAGING_OPERATION_NAME, "process".into()),
            (names::MESSAGING_OPERATION_TYPE, "process".into()),
            (names::MESSAGING_MESSAGE_ID, format!("{}/{}", begun.job, begun.publication).into()),
            (names::PUBLICATION, begun.publication.into()),
            (names::ATTEMPTS, (made.attempts.len() as u64).into()),
        ],
        events: Vec::new(),
        dropped_events: 0,
        links: begun.from.into_iter().collect(),
        error: made.error,
    };
    // Attempts first: there is room for so many events, and each says how many tests failed in it.
    for attempt in &made.attempts {
        span.event(attempt_event(attempt));
    }
    for attempt in &made.attempts {
        let at = ended(attempt);
        for sample in attempt.samples.iter().filter(|sample| sample.outcome.is_failure()) {
            let attributes = vec![
                (names::CASE_NAME, sample.test.0.clone().into()),
                (names::CASE_RESULT, "fail".into()),
                (names::ATTEMPT_INDEX, attempt.index.into()),
            ];
            span.event(SpanEvent { at, name: names::CASE, attributes });
        }
    }
    span
}

fn attempt_event(attempt: &AttemptRecord) -> SpanEvent {
    let outcome = match &attempt.end {
        AttemptEnd::Completed => "completed",
        AttemptEnd::Interrupted { .. } => "interrupted",
        AttemptEnd::NothingRan { .. } => "nothing_ran",
        AttemptEnd::Infrastructure(_) => "infrastructure",
    };
    let count = |of: fn(&Outcome) -> bool| {
        Value::from(attempt.samples.iter().filter(|sample| of(&sample.outcome)).count() as u64)
    };
    #[expect(clippy::cast_precision_loss, reason = "nobody needs more digits of a duration")]
    let seconds = attempt.wall_us as f64 / 1e6;
    let mut attributes: Attributes = vec![
        (names::ATTEMPT_INDEX, attempt.index.into()),
        (names::ATTEMPT_OUTCOME, outcome.into()),
        (names::ATTEMPT_LEVEL, attempt.level.word().into()),
        (names::ATTEMPT_DURATION, Value::Number(seconds)),
        (names::ATTEMPT_PASSED, count(|outcome| matches!(outcome, Outcome::Pass))),
        (names::ATTEMPT_FAILED, count(Outcome::is_failure)),
    ];
    if let AttemptEnd::Infrastructure(error) = &attempt.end {
        attributes.push((names::ERROR_TYPE, error.stage.word().into()));
    }
    SpanEvent { at: ended(attempt), name: names::ATTEMPT, attributes }
}

fn ended(attempt: &AttemptRecord) -> UnixMicros {
    attempt.started_at.saturating_add(i64::try_from(attempt.wall_us).unwrap_or(i64::MAX))
}
