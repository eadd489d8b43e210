//! What is told of a sweep to whoever collects traces.

use super::memory::question_of;
use crate::db::{SweepRow, SweepState};
use crate::plan::QuestionKind;
use crate::report::model::Subject;
use crate::report::{Report, Verdict};
use flakefarm_shared::telemetry::conventions as names;
use flakefarm_shared::telemetry::{self, Span, SpanContext, SpanKind};
use flakefarm_shared::{UnixMicros, now_micros};

/// Tells of a sweep that has ended, with its report if it has one.
pub(super) fn tell(row: &SweepRow, state: &SweepState, report: Option<&Report>) {
    telemetry::tell(|| span(row, state, report, now_micros()));
}

fn span(row: &SweepRow, state: &SweepState, report: Option<&Report>, end: UnixMicros) -> Span {
    let tests = report.iter().flat_map(|report| &report.tests);
    let tests: Vec<Verdict> =
        tests.filter(|test| test.subject == Subject::Test).map(|test| test.verdict).collect();
    let count = |of: Verdict| tests.iter().filter(|verdict| **verdict == of).count() as u64;
    let (flaky, broken) = (count(Verdict::Flaky), count(Verdict::Broken));
    let (result, status) = match state {
        SweepState::Answered if flaky + broken > 0 => ("failure", "failure"),
        SweepState::Answered | SweepState::Running => ("success", "success"),
        SweepState::Cancelled | SweepState::Interrupted => ("cancellation", "aborted"),
        SweepState::Failed(_) => ("error", "aborted"),
    };
    let mut attributes = vec![
        (names::PIPELINE_NAME, row.project.clone().into()),
        (names::PIPELINE_RUN_ID, row.id.to_string().into()),
        (names::PIPELINE_RESULT, result.into()),
        (names::SUITE_NAME, row.project.clone().into()),
        (names::SUITE_RUN_STATUS, status.into()),
        (names::SWEEP_STATE, state.word().into()),
        (names::SWEEP_QUESTION, question(row).into()),
        (names::SWEEP_TESTS, (tests.len() as u64).into()),
        (names::SWEEP_FLAKY, flaky.into()),
    ];
    attributes.extend(row.revision.clone().map(|revision| (names::REVISION, revision.into())));
    Span {
        context: SpanContext::of_sweep(row.id),
        name: format!("sweep {}", row.project),
        kind: SpanKind::Internal,
        start: row.created_at,
        end,
        attributes,
        events: Vec::new(),
        dropped_events: 0,
        links: Vec::new(),
        error: state.refusal().map(|refusal| refusal.message.clone()),
    }
}

fn question(row: &SweepRow) -> &'static str {
    match question_of(row).map(|question| question.kind) {
        Ok(QuestionKind::Detect) => "detect",
        Ok(QuestionKind::Diagnose { .. }) => "diagnose",
        Ok(QuestionKind::Bisect(_)) => "bisect",
        Ok(QuestionKind::Validate(_)) => "validate",
        Err(_) => "unknown",
    }
}
