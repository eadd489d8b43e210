//! The JSON contract of a report (`flakefarm.report/v1`), in both directions: the coordinator writes
//! it, clients and `flakefarm report FILE` read it back. Fields are only ever added, unknown fields
//! are ignored, and what was added after the contract was written has a default.
//!
//! It holds data and no prose beyond messages: what a person reads is made by the renderers.

use super::compared::Comparison;
use super::experiment::Experiment;
pub use super::rate::Rate;
pub use super::trust::{Trust, TrustState};
use crate::diagnose::bisect::Bisection;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use time::OffsetDateTime;

/// The schema this module writes.
pub const SCHEMA: &str = "flakefarm.report/v1";

/// What one sweep found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// The sweep as a whole.
    pub sweep: Sweep,
    /// One entry per test, the highest score first.
    pub tests: Vec<TestReport>,
}

impl Report {
    /// The digests of all captured outputs that it names.
    pub fn output_digests(&self) -> BTreeSet<String> {
        let signatures = self.tests.iter().flat_map(|test| &test.failures_by_signature);
        let experiments = self.tests.iter().filter_map(|test| test.cause.as_ref()?.experiment.as_ref());
        let sides = experiments.flat_map(|experiment| experiment.failing.iter().chain(&experiment.passing));
        let of_failures = signatures.filter_map(|signature| signature.output.clone());
        of_failures.chain(sides.filter_map(|side| side.output.clone())).collect()
    }
}

/// The sweep as a whole: what was asked, what it cost, what it covers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// Its id.
    pub id: String,
    /// `detect`, `diagnose`, `validate` or `compare`.
    pub question: String,
    /// The project's name.
    pub project: String,
    /// The revision that was tested, if known.
    pub revision: Option<String>,
    /// Everything random in the sweep derives from it.
    pub seed: u64,
    /// When it started.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When it ended; absent while it runs.
    #[serde(with = "time::serde::rfc3339::option", default)]
    pub finished_at: Option<OffsetDateTime>,
    /// Why it ended; absent while it runs.
    pub stopped: Option<Stopped>,
    /// Attempts made, each in a fresh container; infrastructure errors are not among them.
    pub attempts: u64,
    /// Samples gathered: one per test and attempt.
    pub samples: u64,
    /// Attempts lost to our own infrastructure.
    pub infrastructure_errors: u64,
    /// Attempts that died before their first test, with nothing changed around the tests.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed_starts: u64,
    /// Attempts with nothing changed around the tests after which the framework ended oddly: an exit code that no
    /// outcome explains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub odd_ends: Option<OddEnds>,
    /// Time containers existed, added up.
    pub container_seconds: f64,
    /// What stopping early saved, compared with the same number of runs for every test; `null` when
    /// the number of runs was fixed.
    pub saved_vs_fixed: Option<SavedVsFixed>,
    /// Runs of each test, when the number was fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<u32>,
    /// The confidence asked for (0.95).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// The rate from which a flaky test must be seen (0.05).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_flake_rate: Option<f64>,
    /// Of what the confidence speaks, when the number of runs was not fixed: `test` or `suite`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guarantee: Option<String>,
    /// What the sweep could cost (`10m`, `container:2h`, `attempts:500`), if it was limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<String>,
    /// What is proved of the suite, whichever guarantee was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<SuiteProof>,
    /// How much one attempt ran: `test`, `file`, `suite`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Framework and interpreter, as they name themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub framework: Option<String>,
    /// The image attempts ran in, by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// How attempts were isolated: `container`, `nested`, `forked`, `host`, `process`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// Where the project lies, as the person typed it; the root of all paths in the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The condition that everything ran under, if one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under: Option<String>,
    /// The one order that everything ran in, if one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// Arguments to the framework that were typed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// The command that runs the given order by hand in the image, without test ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The workers that took part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<String>,
    /// Files that could not be collected: their tests are missing from the report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub collection_errors: Vec<CollectionError>,
    /// What a reader should know and no field says, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Tests that fail together in the same attempts, and so for one cause, the largest set first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<Cluster>,
    /// Infrastructure errors in the order they happened, at most [`INFRASTRUCTURE_LIMIT`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub infrastructure: Vec<InfrastructureError>,
    /// Whether the farm can be trusted, of a sweep that a schedule began: what it said of tests that are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
}

/// Entries kept of [`Sweep::infrastructure`].
pub const INFRASTRUCTURE_LIMIT: usize = 500;

/// Entries kept of one test's [`TestReport::timeline`].
pub const TIMELINE_LIMIT: usize = 500;

/// Why a sweep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopped {
    /// Every question was answered.
    Answered,
    /// The budget was spent first.
    Budget,
    /// Somebody stopped it.
    Cancelled,
}

/// What an adaptive sweep saved, compared with the fixed number of runs that gives the same guarantee.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedVsFixed {
    /// Runs of every test in the plan it is compared with.
    pub fixed_runs: u64,
    /// Samples that were not needed.
    pub samples: u64,
    /// Container seconds that were not needed; negative if it took more.
    #[serde(default)]
    pub container_seconds: f64,
    /// The same as a share of that plan.
    pub fraction: f64,
}

/// How often a framework ended oddly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OddEnds {
    /// Attempts in which it did.
    pub attempts: u64,
    /// Attempts that ran tests.
    pub of: u64,
}

/// Tests that fail together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Their ids.
    pub tests: Vec<String>,
    /// Attempts in which all of them failed.
    pub together: u64,
    /// Attempts that ran all of them.
    pub attempts: u64,
}

/// What is proved of the suite, given how failure rates are spread: published ones, fitted to what the
/// project's tests did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SuiteProof {
    /// Tests that never failed.
    pub clean_tests: u64,
    /// How many of them are expected to flake at `max_flake_rate` or above: flaky tests missed.
    pub expected_missed: f64,
    /// How many of them are expected to flake at whatever rate.
    pub expected_missed_at_any_rate: f64,
    /// Of the tests that flake at `max_flake_rate` or above, the expected share that is missed.
    pub missed_share: f64,
    /// Mean probability of a test that never failed to flake at `max_flake_rate` or above.
    pub risk_per_test: f64,
}

/// A file that could not be collected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionError {
    /// The file, below the project's root.
    pub path: String,
    /// The last lines of the error.
    pub message: String,
}

/// Something of ours failed; no test is charged with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InfrastructureError {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Where and what.
    pub message: String,
}

/// What the sweep says of one test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestReport {
    /// What its framework calls it.
    pub id: String,
    /// What it is, if it is no test but something that several tests share.
    #[serde(default, skip_serializing_if = "Subject::is_test")]
    pub subject: Subject,
    /// The file it is in, below the project's root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The verdict.
    pub verdict: Verdict,
    /// Attempts in which it passed or failed.
    pub attempts: u64,
    /// Those in which it failed.
    pub failures: u64,
    /// Attempts in which it was skipped, with nothing changed around the tests.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skips: u64,
    /// How often it fails; absent when it never ran.
    pub rate: Option<Rate>,
    /// 0 to 1: how much this test deserves attention as a flaky one.
    pub score: f64,
    /// How long it takes; absent when it never ran.
    pub duration_ms: Option<Durations>,
    /// Why no more attempts were made.
    pub stopped_because: String,
    /// Of a test that never failed: the probability that it flakes at `max_flake_rate` or above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk: Option<f64>,
    /// What earlier sweeps saw of it, if the verdict rests on that too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub older_evidence: Option<OlderEvidence>,
    /// Attempts and failures under each condition it ran in.
    pub conditions: Vec<ConditionCount>,
    /// Its failures, equal ones together, the most frequent first.
    pub failures_by_signature: Vec<SignatureCount>,
    /// Why it fails, as far as the attempts show it.
    pub cause: Option<Cause>,
    /// Which revision made it flaky, if that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub introduced: Option<Box<Bisection>>,
    /// How it fares without a change and with it, if that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Box<Comparison>>,
    /// A command that repeats the finding.
    pub reproduce: String,
    /// A command that repeats one failing attempt exactly, when one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reproduce_failure: Option<String>,
    /// Its attempts in the order they started, at most [`TIMELINE_LIMIT`], failures kept before
    /// passes; empty for healthy tests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<TimelineEntry>,
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A test.
    #[default]
    Test,
    /// The tear-down of a fixture that several tests share.
    Fixture,
    /// The collection of a file.
    File,
}

impl Subject {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
    fn is_test(&self) -> bool {
        *self == Subject::Test
    }

    /// What it is called.
    pub fn word(self) -> &'static str {
        match self {
            Subject::Test => "test",
            Subject::Fixture => "fixture",
            Subject::File => "file",
        }
    }
}

/// A verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It passed and failed on the same snapshot under the same treatment.
    Flaky,
    /// It fails under a stress condition only.
    Fragile,
    /// It failed every time.
    Broken,
    /// The budget ended first.
    Inconclusive,
    /// It never failed, often enough to tell.
    Healthy,
    /// The framework skipped it every time.
    Skipped,
}

impl Verdict {
    /// All verdicts, the ones that want attention first.
    pub const ALL: [Verdict; 6] = [
        Verdict::Flaky,
        Verdict::Fragile,
        Verdict::Broken,
        Verdict::Inconclusive,
        Verdict::Healthy,
        Verdict::Skipped,
    ];

    /// The word used in every format.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Flaky => "flaky",
            Verdict::Fragile => "fragile",
            Verdict::Broken => "broken",
            Verdict::Inconclusive => "inconclusive",
            Verdict::Healthy => "healthy",
            Verdict::Skipped => "skipped",
        }
    }
}

/// What earlier sweeps saw of a test, with nothing changed since that it is known to touch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OlderEvidence {
    /// Clean runs since its last failure, older ones counting for less.
    pub clean_runs: f64,
    /// All runs.
    pub attempts: u64,
    /// Failures among them.
    pub failures: u64,
    /// Sweeps they come from.
    pub sweeps: u64,
    /// When the last of them ended.
    #[serde(with = "time::serde::rfc3339")]
    pub last_at: OffsetDateTime,
}

/// Durations in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Durations {
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// Mean.
    pub mean: f64,
    /// Standard deviation over mean.
    pub cv: f64,
}

/// Attempts and failures under one condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConditionCount {
    /// `alone`, `given`, `reversed`, `shuffled`, ...
    pub condition: String,
    /// Attempts in which the test passed or failed.
    pub attempts: u64,
    /// Those in which it failed.
    pub failures: u64,
}

/// Failures that look alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureCount {
    /// Equal for failures that look alike.
    pub signature: String,
    /// `assertion`, `exception`, `framework`, `timeout`, `crash`, `out_of_memory`.
    pub kind: String,
    /// `setup`, `call` or `teardown`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub phase: String,
    /// The last exception's type in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exception: Option<String>,
    /// The fixture whose set-up or tear-down failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixture: Option<String>,
    /// How many.
    pub count: u64,
    /// The message of one of them.
    pub message: String,
    /// The captured output of one of them, by its digest.
    pub output: Option<String>,
    /// Where it arose, if not in the test's own body: `in the tear-down of the fixture `db` (module)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
    /// The innermost place in the project's own code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
}

/// A place in the project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// Path below the project's root.
    pub path: String,
    /// Line, from 1.
    pub line: u32,
}

/// Why a test fails.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// `order dependence`, `timing`, ...
    pub category: String,
    /// 0 to 1.
    pub confidence: f64,
    /// What speaks for it, a sentence each.
    pub evidence: Vec<String>,
    /// The experiment that showed it, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<Box<Experiment>>,
}

/// One attempt, as one test saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimelineEntry {
    /// When the attempt started.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// As in [`ConditionCount::condition`].
    pub condition: String,
    /// The seed of a shuffled order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_seed: Option<u64>,
    /// The test's place in the attempt's order, from 0.
    pub position: u32,
    /// What it did.
    pub outcome: AttemptOutcome,
    /// How long it took.
    pub wall_ms: f64,
    /// As in [`SignatureCount::signature`], for failures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// Who ran it.
    pub worker: String,
    /// Attempts the worker was running at once.
    pub concurrency: u16,
}

/// What a test did in one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// It passed.
    Pass,
    /// It failed.
    Fail,
    /// It was skipped.
    Skip,
    /// It ran too long.
    Timeout,
    /// The interpreter died.
    Crash,
    /// It ran out of memory.
    Oom,
}

impl AttemptOutcome {
    /// Whether it counts as a failure.
    pub fn is_failure(self) -> bool {
        match self {
            AttemptOutcome::Fail | AttemptOutcome::Timeout | AttemptOutcome::Crash | AttemptOutcome::Oom => {
                true
            }
            AttemptOutcome::Pass | AttemptOutcome::Skip => false,
        }
    }

    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            AttemptOutcome::Pass => "passed",
            AttemptOutcome::Fail => "failed",
            AttemptOutcome::Skip => "skipped",
            AttemptOutcome::Timeout => "timed out",
            AttemptOutcome::Crash => "crashed",
            AttemptOutcome::Oom => "out of memory",
        }
    }
}

impl Report {
    /// How many tests have this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.count_of(Subject::Test, verdict)
    }

    /// How many tests, or other things, have this verdict.
    pub fn count_of(&self, subject: Subject, verdict: Verdict) -> usize {
        self.tests.iter().filter(|test| test.subject == subject && test.verdict == verdict).count()
    }

    /// Tests a person should look at, in the report's order: flaky, fragile and broken ones, and
    /// those that failed without a verdict.
    pub fn notable(&self) -> impl Iterator<Item = &TestReport> {
        self.tests.iter().filter(|test| test.is_notable())
    }

    /// Inconclusive tests that never failed.
    pub fn unproved(&self) -> impl Iterator<Item = &TestReport> {
        self.tests.iter().filter(|test| test.verdict == Verdict::Inconclusive && test.failures == 0)
    }

    /// Whether the sweep has ended; until then the report is preliminary.
    pub fn is_finished(&self) -> bool {
        self.sweep.finished_at.is_some()
    }
}

impl TestReport {
    /// Whether a person should look at it.
    pub fn is_notable(&self) -> bool {
        match self.verdict {
            Verdict::Flaky | Verdict::Fragile | Verdict::Broken => true,
            Verdict::Inconclusive => self.failures > 0,
            Verdict::Healthy | Verdict::Skipped => false,
        }
    }

    /// The file it is in: as reported, or what its id says.
    pub fn file(&self) -> &str {
        match &self.file {
            Some(file) => file,
            None => self.id.split_once("::").map_or("", |(file, _)| file),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_report_survives_json() {
        for report in [sample::realistic(), sample::hostile(), sample::empty(), sample::one_test()] {
            let text = serde_json::to_string(&report).expect("plain data");
            assert_eq!(serde_json::from_str::<Report>(&text).expect("our own schema"), report);
        }
    }

    #[test]
    fn the_contract_alone_is_enough_and_more_is_ignored() {
        let text = r#"{ "schema": "flakefarm.report/v1", "new": 1,
            "sweep": { "id": "s", "question": "detect", "project": "p", "revision": null, "seed": 18446744073709551615,
                "started_at": "2026-03-14T02:00:00Z", "finished_at": null, "stopped": null, "attempts": 1, "samples": 1,
                "infrastructure_errors": 0, "container_seconds": 1.5, "saved_vs_fixed": null, "newer": [] },
            "tests": [ { "id": "t", "verdict": "healthy", "attempts": 1, "failures": 0,
                "rate": { "estimate": 0, "lower": 0, "upper": 0.9, "confidence": 0.95 }, "score": 0,
                "duration_ms": { "p50": 1, "p95": 1, "mean": 1, "cv": 0 }, "stopped_because": "x",
                "conditions": [], "failures_by_signature": [], "cause": null, "reproduce": "flakefarm" } ] }"#;
        let report: Report = serde_json::from_str(text).expect("the contract");
        assert_eq!(report.sweep.seed, u64::MAX);
        assert!(!report.is_finished());
        let again = serde_json::to_value(&report).expect("plain data");
        assert!(again["sweep"]["finished_at"].is_null() && again["tests"][0]["cause"].is_null());
        assert!(again["sweep"].get("workers").is_none(), "what is not known is not claimed");
    }

    #[test]
    fn the_shape_of_the_json() {
        let mut report = sample::realistic();
        report.tests.truncate(1);
        report.tests[0].timeline.truncate(2);
        insta::assert_json_snapshot!(report);
    }
}
