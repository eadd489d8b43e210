//! Tests that failed in a CI job, run again: somebody waits for the answer, so runs end as soon as what
//! they would add cannot change what the job does, and the orders of the job are tried only with tests that
//! pass alone. Data that the planner for a fixed number of runs reads.

use super::alone::Alone;
use super::chains::Slot;
use crate::experiment::{Ledger, Planning, Question, Rerun, Seen};
use crate::plan::Plan;
use flakefarm_shared::{AttemptSpec, Order, SandboxLevel, Scope, Selection, TestId, World};

/// Failures in a row after which a test is called broken if no more runs can change what the job does.
const BROKEN_AFTER: u32 = 5;
/// Runs that every test gets, whatever the others have decided.
const LEAST_RUNS: u32 = 3;
/// Runs in each order of the job.
const RUNS_IN_ORDER: usize = 3;
/// Runs alone without a failure after which the orders of the job are tried.
const PASSES_ALONE: u32 = 5;
/// Runs beyond the others, in containers, of a test that failed in prepared interpreters only.
const CONFIRMING_RUNS: u32 = 8;
/// Seconds of a sandbox's start, where somebody waits.
const START_SECONDS: f64 = 0.3;

/// What was seen of one test, with nothing changed around it.
#[derive(Debug, Clone, Copy, Default)]
struct Shown {
    passes: u32,
    failures: u32,
    /// Where no interpreter was prepared.
    trusted_passes: u32,
    trusted_failures: u32,
}

impl Shown {
    fn of(test: &TestId, ledger: &Ledger) -> Self {
        let mut shown = Self::default();
        for observation in ledger.plain(test) {
            let trusted = u32::from(observation.level != SandboxLevel::Forked);
            match observation.seen {
                Seen::Pass => {
                    shown.passes += 1;
                    shown.trusted_passes += trusted;
                }
                Seen::Fail(_) => {
                    shown.failures += 1;
                    shown.trusted_failures += trusted;
                }
                Seen::Skip => {}
            }
        }
        shown
    }

    fn runs(self) -> u32 {
        self.passes + self.failures
    }

    /// It passes and fails, and not because of how it was isolated.
    fn is_flaky(self) -> bool {
        let forked_passes = self.passes - self.trusted_passes;
        let forked_failures = self.failures - self.trusted_failures;
        self.trusted_failures > 0 && (self.trusted_passes > 0 || (forked_passes > 0 && forked_failures > 0))
    }

    fn fails_always(self, runs: u32) -> bool {
        self.passes == 0 && self.trusted_failures > 0 && self.failures >= runs
    }
}

/// Whether more runs can change nothing: what the job does is known, and every test was looked at.
pub(super) fn is_decided(question: &Question, selected: &[TestId], alone: &Alone, ledger: &Ledger) -> bool {
    let Some(rerun) = &question.rerun else { return false };
    let gate = rerun.gate;
    // A test that fails may still pass: that it is looked at for long matters where the two differ.
    let alike = gate.flaky == gate.broken;
    let broken_after = if alike { BROKEN_AFTER } else { question.runs_per_test() };
    let fails = |shown: Shown| shown.fails_always(broken_after.min(question.runs_per_test()));
    let given_up = |test: &TestId| ledger.place(test).is_some_and(|place| alone.given_up(place, ledger));
    let mut all_settled = true;
    let mut all_looked_at = true;
    let mut gate_decided = false;
    for test in selected {
        let shown = Shown::of(test, ledger);
        gate_decided |= (gate.flaky && shown.is_flaky()) || (gate.broken && fails(shown));
        let settled = shown.is_flaky() || fails(shown);
        all_settled &= settled;
        all_looked_at &= settled || shown.runs() >= LEAST_RUNS || given_up(test);
    }
    !selected.is_empty() && (all_settled || (gate_decided && all_looked_at))
}

/// Attempts in the orders of the job, once a test that failed in one passes alone.
pub(super) fn in_order(question: &Question, selected: &[TestId], ledger: &Ledger) -> Vec<Slot> {
    let Some(rerun) = &question.rerun else { return Vec::new() };
    // Once wanted they stay so: in their orders, tests may fail.
    let enough = PASSES_ALONE.min(question.runs_per_test());
    let passes_alone = |test: &TestId| {
        let alone = || ledger.plain(test).filter(|observation| observation.scope == Scope::Test);
        let failed = alone().any(|observation| matches!(observation.seen, Seen::Fail(_)));
        let passes = alone().filter(|observation| matches!(observation.seen, Seen::Pass)).count();
        !failed && passes >= enough as usize
    };
    let slots = rerun.orders.iter().filter_map(|order| {
        let last = order.last()?;
        if !selected.contains(last) || !order.iter().any(|test| selected.contains(test) && passes_alone(test))
        {
            return None;
        }
        let tests: Vec<TestId> = order.iter().filter(|test| ledger.place(test).is_some()).cloned().collect();
        (tests.len() > 1).then_some(Selection::only(tests))
    });
    slots
        .flat_map(|tests| {
            let slot = Slot { scope: Scope::Suite, order: Order::AsListed, tests, world: World::Plain };
            std::iter::repeat_n(slot, RUNS_IN_ORDER)
        })
        .collect()
}

/// Runs alone that each test gets.
pub(super) fn runs_of(question: &Question, test: &TestId, ledger: &Ledger) -> u32 {
    let runs = question.runs_per_test();
    if question.rerun.is_none() {
        return runs;
    }
    let shown = Shown::of(test, ledger);
    if shown.failures > 0 && shown.trusted_failures == 0 { runs + CONFIRMING_RUNS } else { runs }
}

/// Whether a rerun is to travel alone: its test has failed, so that it is looked at in a container, which shares
/// nothing with others, and whose end may decide.
pub(super) fn travels_alone(question: &Question, spec: &AttemptSpec, ledger: &Ledger) -> bool {
    let has_failed =
        |test: &TestId| ledger.plain(test).any(|observation| matches!(observation.seen, Seen::Fail(_)));
    match &spec.tests {
        Selection::Only(tests) => question.rerun.is_some() && tests.iter().any(has_failed),
        Selection::All => false,
    }
}

/// What one run of one test alone is foreseen to take, where the job has said so.
pub(super) fn foreseen_seconds(question: &Question) -> Option<f64> {
    let expected = question.rerun.as_deref().map_or(0, |rerun: &Rerun| rerun.expected_ms);
    (expected > 0).then(|| f64::from(expected) / 1e3 + START_SECONDS)
}

/// The plan of what is decided: whatever is under way may be given up.
pub(super) fn nothing_more(ledger: &Ledger) -> Plan {
    let under_way = ledger.outstanding().next().is_some();
    let state = if under_way { Planning::Overdue } else { Planning::Complete };
    Plan { jobs: Vec::new(), remaining: super::Estimate::default(), state, limited: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{History, RerunGate, Runs, ScopeChoice};
    use crate::plan::{SandboxChoice, plan};
    use flakefarm_shared::{
        AttemptRecord, Failure, FailureKind, JobId, JobReport, Outcome, Phase, Sample, WIRE_VERSION, WorkerId,
    };
    use std::num::{NonZeroU16, NonZeroU32};
    use std::time::Duration;

    const RUNS: u32 = 20;

    /// What a test does in a run: alone or not, at which level, and which run of it this is.
    type Does = fn(Scope, SandboxLevel, usize) -> bool;

    fn question(gate: RerunGate, expected_ms: u32) -> Question {
        Question {
            runs: Runs::Fixed(NonZeroU32::new(RUNS).unwrap()),
            scope: ScopeChoice::Test,
            sandbox: SandboxChoice::Auto,
            workers: NonZeroU16::new(2).unwrap(),
            tests: crate::plan::TestFilter(vec!["t.py::asked".to_owned()]),
            rerun: Some(Box::new(Rerun {
                gate,
                expected_ms,
                orders: vec![vec![TestId::from("t.py::before"), TestId::from("t.py::asked")]],
            })),
            ..Question::detect(1)
        }
    }

    /// Runs jobs one after the other to the end; gives runs and failures of the test asked for, in jobs.
    fn carried_out(question: &Question, passes: Does) -> (usize, usize, usize) {
        let asked = TestId::from("t.py::asked");
        let mut ledger = Ledger::new(vec![TestId::from("t.py::before"), asked.clone()]);
        let (mut jobs, mut runs) = (0, 0);
        let mut waiting: Vec<crate::plan::PlannedJob> = Vec::new();
        loop {
            let planned = plan(question, &ledger, &History::default(), Duration::ZERO);
            if planned.state != Planning::Working {
                break;
            }
            for job in planned.jobs {
                ledger.note_planned(job.key, &job.attempts);
                waiting.push(job);
            }
            let job = waiting.remove(0);
            jobs += 1;
            let attempts = job.attempts.iter().map(|spec| {
                let tests = match &spec.tests {
                    Selection::Only(tests) => tests.to_vec(),
                    Selection::All => unreachable!("tests are named"),
                };
                let samples = tests.into_iter().map(|test| {
                    let passes = test != asked || passes(spec.scope, spec.level, runs);
                    runs += usize::from(test == asked);
                    Sample {
                        outcome: if passes { Outcome::Pass } else { failure() },
                        test,
                        wall_us: 100_000,
                        cpu_us: 1_000,
                        phases: None,
                        position: 0,
                        warnings: Vec::new(),
                        expected_failure: None,
                        output: None,
                    }
                });
                let samples = samples.collect();
                AttemptRecord { samples, ..AttemptRecord::completed(spec, WorkerId("w".to_owned())) }
            });
            let attempts = attempts.collect();
            let job_id = JobId(uuid::Uuid::nil());
            ledger.note_report(job.key, &JobReport { v: WIRE_VERSION, job: job_id, listing: None, attempts });
        }
        let shown = Shown::of(&asked, &ledger);
        (shown.runs() as usize, shown.failures as usize, jobs)
    }

    fn failure() -> Outcome {
        Outcome::Fail(Failure {
            kind: FailureKind::Assertion,
            phase: Phase::Call,
            exceptions: Vec::new(),
            message: "no".to_owned(),
            frames: Vec::new(),
            circumstances: Vec::new(),
            signature: "0".repeat(16),
        })
    }

    const BOTH: RerunGate = RerunGate { flaky: true, broken: true };

    #[test]
    fn runs_end_as_soon_as_they_can_change_nothing() {
        // A short test: two jobs, one of which is enough.
        let short = question(BOTH, 100);
        let (runs, failures, jobs) = carried_out(&short, |_, _, _| false);
        assert_eq!((runs, failures, jobs), (10, 10, 1));
        // A long one: a job for each run.
        let long = question(BOTH, 60_000);
        let (runs, failures, _) = carried_out(&long, |_, _, _| false);
        assert_eq!((runs, failures), (5, 5));
        let (runs, failures, _) = carried_out(&long, |_, _, run| run != 1);
        assert_eq!((runs, failures), (2, 1));
        // Where flaky tests pass the gate and broken ones do not, the difference is worth all runs.
        let differ = question(RerunGate { flaky: false, broken: true }, 60_000);
        assert_eq!(carried_out(&differ, |_, _, _| false).0, RUNS as usize);
    }

    #[test]
    fn the_order_of_the_job_is_tried_with_what_passes_alone() {
        let order = question(BOTH, 60_000);
        let (runs, failures, _) = carried_out(&order, |scope, _, _| scope == Scope::Test);
        assert!(failures >= 1 && runs <= RUNS as usize + RUNS_IN_ORDER, "{failures} of {runs}");
        let (runs, failures, _) = carried_out(&order, |_, _, _| true);
        assert_eq!((runs, failures), (RUNS as usize + RUNS_IN_ORDER, 0));
    }

    #[test]
    fn what_is_looked_at_in_containers_travels_alone() {
        let short = question(BOTH, 100);
        // One fails in each prepared interpreter and, in a container, from the third time on.
        let (runs, failures, jobs) =
            carried_out(&short, |_, level, run| level != SandboxLevel::Forked && run < RUNS as usize + 2);
        assert_eq!((runs, failures > 1, jobs), (RUNS as usize + 3, true, 2 + 3));
    }

    #[test]
    fn what_fails_in_prepared_interpreters_only_is_looked_at_in_containers() {
        let short = question(BOTH, 100);
        let forked = |_: Scope, level: SandboxLevel, _: usize| level != SandboxLevel::Forked;
        let (runs, failures, _) = carried_out(&short, forked);
        assert!(failures > 0 && runs >= (RUNS + CONFIRMING_RUNS) as usize, "{failures} of {runs}");
    }
}
