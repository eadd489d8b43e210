//! What is known of tests before a sweep runs any: what earlier sweeps recorded of them, and what
//! their sources say. Made once per sweep and then left alone, so that a plan depends on nothing
//! that changes under it.
//!
//! Old runs count for as long as nothing changed that a test is known to touch, and for less as they
//! age: [`HALF_LIFE_DAYS`].

use flakefarm_shared::source::{Risk, TestSource};
use flakefarm_shared::{Digest, TestId, UnixMicros};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// After so many days an old run counts for half a run.
pub const HALF_LIFE_DAYS: f64 = 45.0;
/// Runs of one test beyond which more say nothing new of how failure rates are spread.
const RUNS_FOR_SPREAD: u32 = 2_000;
const MICROS_PER_DAY: f64 = 86_400e6;

/// What is known of a project's tests beforehand. Empty by default: every test is new.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Looked up for every test at every turn, never gone through.
    tests: HashMap<TestId, TestHistory>,
    /// How often tests failed in how many runs, on every version of them that was seen.
    spread: Vec<RunCounts>,
}

/// What is known of one test.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TestHistory {
    /// What makes it likely to flake, found in its source.
    pub risks: Vec<Risk>,
    /// How long it took, in seconds.
    pub seconds: Option<f64>,
    /// Whether it ever passed and failed, in whatever version.
    pub flaked: Flaked,
    /// What was seen of it since what it touches changed last; none if nothing was.
    pub record: Option<Record>,
}

/// Whether a test ever flaked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flaked {
    /// Not that we saw.
    #[default]
    Never,
    /// In this or an earlier version.
    Once,
}

/// What earlier sweeps saw of a test that has not changed since.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Runs without failure since the last failure, older ones for less.
    pub clean_runs: f64,
    /// All runs.
    pub attempts: u32,
    /// Failures among them.
    pub failures: u32,
    /// Sweeps they come from.
    pub sweeps: u32,
    /// When it ran last.
    pub last_at: UnixMicros,
    /// Days from then to the start of this sweep.
    pub age_days: f64,
}

/// So many tests failed so often in so many runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunCounts {
    /// Runs.
    pub attempts: u32,
    /// Failures among them.
    pub failures: u32,
    /// Tests of which this holds.
    pub tests: u32,
}

/// What one earlier sweep recorded of one test.
#[derive(Debug, Clone, PartialEq)]
pub struct PastRun {
    /// The test.
    pub test: TestId,
    /// What the test touched then; none if nobody looked.
    pub fingerprint: Option<Digest>,
    /// Passes and failures, with nothing changed around the test.
    pub attempts: u32,
    /// Failures among them.
    pub failures: u32,
    /// Median duration in seconds.
    pub seconds: f64,
    /// When the sweep ended.
    pub finished_at: UnixMicros,
}

impl History {
    /// What `past` says of `tests` at `now`. `sources` are those of the listing, in its order, or
    /// empty; a test without a fingerprint is taken for changed. Runs may come in any order.
    pub fn new(
        tests: &[TestId],
        sources: &[TestSource],
        past: impl IntoIterator<Item = PastRun>,
        now: UnixMicros,
    ) -> Self {
        let mut runs: HashMap<TestId, Vec<PastRun>> = HashMap::new();
        let mut versions: BTreeMap<(TestId, Option<Digest>), (u32, u32)> = BTreeMap::new();
        for run in past {
            if run.attempts == 0 || run.finished_at > now {
                continue;
            }
            let (attempts, failures) =
                versions.entry((run.test.clone(), run.fingerprint.clone())).or_default();
            *attempts = attempts.saturating_add(run.attempts);
            *failures = failures.saturating_add(run.failures);
            runs.entry(run.test.clone()).or_default().push(run);
        }
        let mut history = Self { tests: HashMap::new(), spread: spread(&versions) };
        for (place, test) in tests.iter().enumerate() {
            let source = sources.get(place);
            let mut known = TestHistory {
                risks: source.map_or_else(Vec::new, |source| source.risks.clone()),
                ..TestHistory::default()
            };
            if let Some(mut runs) = runs.remove(test) {
                runs.sort_by(|a, b| {
                    a.finished_at.cmp(&b.finished_at).then_with(|| a.attempts.cmp(&b.attempts))
                });
                known.read(&runs, source.map(|source| &source.fingerprint), now);
            }
            if known != TestHistory::default() {
                history.tests.insert(test.clone(), known);
            }
        }
        history
    }

    /// The same where somebody else saw some tests both pass and fail on one revision: they are taken for
    /// tests that flaked before, which raises their place and proves nothing.
    pub fn suspecting<'a>(mut self, tests: impl IntoIterator<Item = &'a TestId>) -> Self {
        for test in tests {
            self.tests.entry(test.clone()).or_default().flaked = Flaked::Once;
        }
        self
    }

    /// What is known of `test`.
    pub fn of(&self, test: &TestId) -> Option<&TestHistory> {
        self.tests.get(test)
    }

    /// Whether nothing is known of any test.
    pub fn is_empty(&self) -> bool {
        self.tests.is_empty()
    }

    /// How often tests failed in how many runs, one entry per pair of counts, sorted.
    pub fn spread(&self) -> &[RunCounts] {
        &self.spread
    }
}

impl TestHistory {
    fn read(&mut self, runs: &[PastRun], fingerprint: Option<&Digest>, now: UnixMicros) {
        self.seconds = runs.last().map(|run| run.seconds);
        let flaked = |run: &PastRun| run.failures > 0 && run.failures < run.attempts;
        if runs.iter().any(flaked) {
            self.flaked = Flaked::Once;
        }
        let Some(fingerprint) = fingerprint else { return };
        for run in runs.iter().filter(|run| run.fingerprint.as_ref() == Some(fingerprint)) {
            let age_days = (now - run.finished_at).max(0) as f64 / MICROS_PER_DAY;
            let record = self.record.get_or_insert(Record {
                clean_runs: 0.0,
                attempts: 0,
                failures: 0,
                sweeps: 0,
                last_at: run.finished_at,
                age_days,
            });
            // Which of a sweep's runs failed is not recorded: all of them come before the failure.
            record.clean_runs = if run.failures > 0 {
                0.0
            } else {
                record.clean_runs + f64::from(run.attempts) * (-age_days / HALF_LIFE_DAYS).exp2()
            };
            record.attempts = record.attempts.saturating_add(run.attempts);
            record.failures = record.failures.saturating_add(run.failures);
            record.sweeps += 1;
            record.last_at = run.finished_at;
            record.age_days = age_days;
        }
    }
}

fn spread(versions: &BTreeMap<(TestId, Option<Digest>), (u32, u32)>) -> Vec<RunCounts> {
    let mut counts: BTreeMap<(u32, u32), u32> = BTreeMap::new();
    for (attempts, failures) in versions.values() {
        let (attempts, failures) = if *attempts > RUNS_FOR_SPREAD {
            // A rate keeps its meaning when both counts shrink, a failure that was seen stays one.
            let share = f64::from(RUNS_FOR_SPREAD) / f64::from(*attempts);
            (RUNS_FOR_SPREAD, (f64::from(*failures) * share).ceil() as u32)
        } else {
            (*attempts, *failures)
        };
        *counts.entry((attempts, failures)).or_default() += 1;
    }
    let entry = |((attempts, failures), tests)| RunCounts { attempts, failures, tests };
    counts.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;

    fn run(version: &str, attempts: u32, failures: u32, day: i64) -> PastRun {
        PastRun {
            test: TestId::from("t"),
            fingerprint: Some(Digest::of(version.as_bytes())),
            attempts,
            failures,
            seconds: 0.5,
            finished_at: day * DAY,
        }
    }

    fn known(version: &str, past: &[PastRun], day: i64) -> TestHistory {
        let tests = [TestId::from("t")];
        let sources = [TestSource {
            fingerprint: Digest::of(version.as_bytes()),
            risks: vec![Risk::Sleep],
            body: None,
        }];
        let there = History::new(&tests, &sources, past.to_vec(), day * DAY);
        let back = History::new(&tests, &sources, past.iter().rev().cloned(), day * DAY);
        assert_eq!(there, back, "runs may come in any order");
        there.of(&tests[0]).unwrap().clone()
    }

    #[test]
    fn old_runs_count_for_less_and_only_for_what_they_were_about() {
        #[track_caller]
        fn check(version: &str, past: &[PastRun], day: i64, expect: Option<(f64, u32)>) {
            let record = known(version, past, day).record;
            let found = record.map(|record| ((record.clean_runs * 100.0).round() / 100.0, record.sweeps));
            assert_eq!(found, expect);
        }
        check("a", &[run("a", 60, 0, 10)], 10, Some((60.0, 1)));
        check("a", &[run("a", 60, 0, 10)], 55, Some((30.0, 1)));
        check("a", &[run("a", 60, 0, 10), run("a", 2, 0, 55)], 55, Some((32.0, 2)));
        check("b", &[run("a", 60, 0, 10)], 10, None);
        check("a", &[run("a", 60, 0, 10), run("b", 60, 0, 11)], 11, Some((59.08, 1)));
        check("a", &[run("a", 60, 1, 10)], 10, Some((0.0, 1)));
        check("a", &[run("a", 60, 1, 9), run("a", 7, 0, 10)], 10, Some((7.0, 2)));
        check("a", &[run("a", 60, 0, 9), run("a", 7, 1, 10)], 10, Some((0.0, 2)));
        check("a", &[run("a", 0, 0, 10)], 10, None);
        check("a", &[run("a", 60, 0, 11)], 10, None);
    }

    #[test]
    fn what_is_suspected_is_taken_for_flaked_and_for_nothing_else() {
        let (known, new) = (TestId::from("t"), TestId::from("new"));
        let history = History::new(std::slice::from_ref(&known), &[], [run("a", 60, 0, 9)], 11 * DAY);
        let before = history.of(&known).unwrap().clone();
        let history = history.suspecting([&known, &new]);
        assert_eq!(*history.of(&known).unwrap(), TestHistory { flaked: Flaked::Once, ..before });
        assert_eq!(history.of(&new).unwrap().flaked, Flaked::Once);
        assert_eq!(history.of(&new).unwrap().record, None);
    }

    #[test]
    fn what_flaked_once_is_remembered_whatever_its_version() {
        assert_eq!(known("b", &[run("a", 60, 1, 9)], 10).flaked, Flaked::Once);
        assert_eq!(known("b", &[run("a", 60, 60, 9)], 10).flaked, Flaked::Never);
        let tests = [TestId::from("t")];
        let history = History::new(&tests, &[], [run("a", 60, 1, 9), run("a", 40, 1, 10)], 11 * DAY);
        assert_eq!(history.spread(), [RunCounts { attempts: 100, failures: 2, tests: 1 }]);
        assert_eq!(history.of(&tests[0]).unwrap().record, None, "without a fingerprint it may have changed");
    }
}
