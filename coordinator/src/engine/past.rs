//! What earlier runs of a project say of its tests, and what a sweep leaves to later ones. Runs count
//! only for runs of the same treatment class, and only while nothing changed that a test touches.

use super::memory::{compute, question_of};
use super::{Coordinator, EngineError};
use crate::db::{RunRow, SeenTest, SweepRow, VerdictRow};
use crate::history::{failing, fingerprint};
use crate::plan::{self, History, Question, QuestionError, QuestionKind, SandboxChoice};
use crate::report::model::Subject;
use crate::report::{Report, TestReport};
use flakefarm_shared::{
    Listing, RunOrigin, SandboxLevel, SourceClass, SweepContext, TestId, TestSource, TreatmentClass,
    UnixMicros, World, WorldClass,
};
use std::collections::{HashMap, HashSet};

/// Earlier runs of a project and treatment class that count as its history.
const PAST_RUNS: u32 = 45;
/// How long CI's suspicion of a test lasts: 45 days.
const SUSPICION_MICROS: UnixMicros = 45 * 86_400_000_000;

impl Coordinator {
    /// What was known of the tests when the sweep was submitted; the same however often it is asked.
    pub(super) async fn history(&self, row: &SweepRow, listing: &Listing) -> Result<History, EngineError> {
        let question = question_of(row)?;
        let context = self.context(row).await?;
        let class = class_of(&question, &context);
        if !reads_history(class) {
            return Ok(History::default());
        }
        let mut past = self.db.past_runs(&row.project, class, row.created_at, PAST_RUNS).await?;
        let names = self.names_then(row, listing).await?;
        for run in &mut past {
            if let Some(now) = names.get(&run.test) {
                run.test = now.clone();
            }
        }
        let fingerprints = fingerprint::of_listing(&context.project, listing);
        let of = |(test, source): (&TestId, &TestSource)| TestSource {
            fingerprint: fingerprints[test].clone(),
            risks: source.risks.clone(),
            body: source.body.clone(),
        };
        let sources: Vec<TestSource> = listing.tests.iter().zip(&listing.sources).map(of).collect();
        let history = History::new(&listing.tests, &sources, past, row.created_at);
        let since = row.created_at.saturating_sub(SUSPICION_MICROS);
        let suspects = self.db.suspects(&row.project, since, row.created_at).await?;
        let listed: HashSet<&TestId> = listing.tests.iter().collect();
        let suspects = suspects.iter().map(|suspect| names.get(&suspect.test).unwrap_or(&suspect.test));
        Ok(history.suspecting(suspects.filter(|test| listed.contains(test))))
    }

    pub(super) async fn affords_one_round(
        &self,
        row: &SweepRow,
        question: &Question,
        selected: &[TestId],
        listing: &Listing,
    ) -> Result<Result<(), QuestionError>, EngineError> {
        if question.budget.is_none() {
            return Ok(Ok(()));
        }
        let history = self.history(row, listing).await?;
        Ok(plan::affords_one_round(question, selected, &history))
    }

    /// Records the run that a sweep is or was, the tests that were there, and what was found of them, for
    /// those who ask later. Repeating it replaces what it recorded.
    pub(super) async fn remember(
        &self,
        row: &SweepRow,
        listing: &Listing,
        report: &Report,
        finished_at: UnixMicros,
    ) -> Result<(), EngineError> {
        let question = question_of(row)?;
        let context = self.context(row).await?;
        let run = RunRow {
            id: row.id.0,
            project: row.project.clone(),
            origin: origin_of(&question),
            class: class_of(&question, &context),
            level: Some(question.sandbox.word().to_owned()),
            revision: row.revision.clone(),
            branch: None,
            environment: Some(listing.image.clone()),
            variant: None,
            ci: None,
            attempt: None,
            started_at: row.created_at,
            finished_at: Some(finished_at),
        };
        self.db.record_run(&run).await?;
        let seen = |(place, test): (usize, &TestId)| SeenTest {
            test: test.clone(),
            parts: listing
                .parts_of(place)
                .map(|parts| serde_json::to_string(&parts).expect("parts of a test id serialise")),
        };
        let seen: Vec<SeenTest> = listing.tests.iter().enumerate().map(seen).collect();
        self.db.note_tests(&row.project, &seen, row.created_at).await?;
        self.remember_failures(row, &question, context.under).await?;
        // Verdicts are on tests as they are; what an experiment found is in its report.
        if question.kind == QuestionKind::Detect {
            let fingerprints = fingerprint::of_listing(&context.project, listing);
            let verdicts = verdict_rows(report, &fingerprints, finished_at);
            self.db.record_verdicts(row.id, &verdicts).await?;
        }
        Ok(())
    }

    /// Records how tests failed in a sweep, attempt by attempt.
    async fn remember_failures(
        &self,
        row: &SweepRow,
        question: &Question,
        under: World,
    ) -> Result<(), EngineError> {
        let held = self.fold(row, question).await?;
        let Some(tests) = held.as_ref().map(|memory| memory.ledger.tests().to_vec()) else { return Ok(()) };
        let numbers = self.db.test_numbers(&row.project, &tests).await?;
        let (run, origin) = (row.id.0, origin_of(question));
        let (_held, failing) = compute(held, "reading how tests failed", move |memory| {
            memory.as_ref().map(|memory| failing::of_ledger(&memory.ledger, run, origin, &under, &numbers))
        })
        .await?;
        let failing = failing.unwrap_or_default();
        self.db.record_failures(run, &failing.rows).await?;
        Ok(self.db.set_occasions(run, failing.occasions).await?)
    }
}

/// Whether earlier runs of a class say something of the next one: they do where all of its runs are alike.
pub(super) fn reads_history(class: TreatmentClass) -> bool {
    match class {
        TreatmentClass::Plain | TreatmentClass::Unisolated => true,
        TreatmentClass::Unknown
        | TreatmentClass::Stressed
        | TreatmentClass::Diagnosed
        | TreatmentClass::Bisected
        | TreatmentClass::Patched
        | TreatmentClass::Ci => false,
    }
}

/// What kind of run a question makes.
pub(super) fn origin_of(question: &Question) -> RunOrigin {
    match question.kind {
        QuestionKind::Detect => RunOrigin::Sweep,
        QuestionKind::Diagnose { .. } => RunOrigin::Diagnosis,
        QuestionKind::Bisect(_) => RunOrigin::Bisection,
        QuestionKind::Validate(_) => RunOrigin::Validation,
    }
}

/// The class of the attempts that ask for nothing special.
pub(super) fn class_of(question: &Question, context: &SweepContext) -> TreatmentClass {
    let level = match question.sandbox {
        SandboxChoice::Process => SandboxLevel::Process,
        SandboxChoice::Host => SandboxLevel::Host,
        SandboxChoice::Container
        | SandboxChoice::Nested
        | SandboxChoice::Forked
        | SandboxChoice::ForkedOnly
        | SandboxChoice::Auto => SandboxLevel::Container,
    };
    let world = if context.under.is_plain() { WorldClass::Plain } else { WorldClass::Changed };
    TreatmentClass::of(origin_of(question), SourceClass::Submitted, world, level)
}

/// What history remembers of a report.
fn verdict_rows(
    report: &Report,
    fingerprints: &HashMap<TestId, flakefarm_shared::Digest>,
    finished_at: UnixMicros,
) -> Vec<VerdictRow> {
    let count = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let row = |test: &TestReport| VerdictRow {
        project: report.sweep.project.clone(),
        test: TestId(test.id.clone()),
        verdict: test.verdict.word().to_owned(),
        attempts: count(test.attempts),
        failures: count(test.failures),
        estimate: test.rate.as_ref().map_or(0.0, |rate| rate.estimate),
        lower: test.rate.as_ref().map_or(0.0, |rate| rate.lower),
        upper: test.rate.as_ref().map_or(1.0, |rate| rate.upper),
        score: test.score,
        p50_ms: test.duration_ms.as_ref().map_or(0.0, |durations| durations.p50),
        finished_at,
        fingerprint: fingerprints.get(&TestId(test.id.clone())).cloned(),
    };
    report.tests.iter().filter(|test| test.subject == Subject::Test).map(row).collect()
}
