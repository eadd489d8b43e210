//! What attempts cost, learnt from those that ended and, before any did, from earlier sweeps. Costs
//! shape jobs and budgets; they never decide what a sweep means.

use crate::experiment::{Estimate, History, Ledger, PlannedJob, Standing};
use flakefarm_shared::{AttemptSpec, Scope, Selection, TestId};

/// Shortest start of a sandbox that is believed, in seconds.
const LEAST_OVERHEAD: f64 = 0.005;
/// Ended attempts beyond which costs are settled: the first ones also prepare what later ones find ready.
pub(super) const SETTLED: usize = 200;
/// Runs of a test among others, at least, for each that ended its attempt, if it is to go on among them; and so many
/// times what that costs must be saved by it.
const RUNS_FOR_AN_INTERRUPTION: u32 = 8;
const INTERRUPTION_SAVES: f64 = 2.0;
/// What the start of a sandbox is taken to cost as long as none was measured.
const GUESSED_OVERHEAD: f64 = 1.5;

/// Expected container seconds.
pub(super) struct Costs<'a> {
    ledger: &'a Ledger,
    /// By place; the mean over tests for those never seen.
    tests: Vec<f64>,
    /// Seconds of an attempt that are not its tests'; none before anything was measured.
    overhead: [Option<f64>; 3],
    suite: Option<f64>,
    known: Known,
}

/// Whether durations of tests are known at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Nothing,
    /// From earlier sweeps only.
    Before,
    Measured,
}

impl<'a> Costs<'a> {
    /// What it was learnt from.
    pub(super) fn ledger(&self) -> &'a Ledger {
        self.ledger
    }

    pub(super) fn learn(ledger: &'a Ledger, history: &History) -> Self {
        let now: Vec<Option<f64>> =
            (0..ledger.tests().len()).map(|place| ledger.tally_of(place).mean_seconds()).collect();
        let measured = now.iter().any(Option::is_some);
        let seconds: Vec<Option<f64>> = if history.is_empty() {
            now
        } else {
            let before = |test: &TestId| history.of(test).and_then(|known| known.seconds);
            now.into_iter().zip(ledger.tests()).map(|(now, test)| now.or_else(|| before(test))).collect()
        };
        let (sum, count) =
            seconds.iter().flatten().fold((0.0, 0_u32), |(sum, count), seconds| (sum + seconds, count + 1));
        let any_test = if count == 0 { 0.0 } else { sum / f64::from(count) };
        let own = |scope: Scope| {
            let (seconds, count) = ledger.attempt_seconds(scope);
            (count > 0)
                .then(|| ((seconds - ledger.seconds_in_tests(scope)) / count as f64).max(LEAST_OVERHEAD))
        };
        let (test, file, suite) = (own(Scope::Test), own(Scope::File), own(Scope::Suite));
        let tests: Vec<f64> = seconds.into_iter().map(|seconds| seconds.unwrap_or(any_test)).collect();
        // Not the mean attempt: most of those on a suite leave out what needs no more runs.
        let whole_suite = suite.map(|start| start + tests.iter().sum::<f64>());
        Self {
            ledger,
            tests,
            overhead: [test.or(file).or(suite), file.or(suite).or(test), suite.or(file).or(test)],
            suite: whole_suite,
            known: if measured {
                Known::Measured
            } else if count > 0 {
                Known::Before
            } else {
                Known::Nothing
            },
        }
    }

    /// Where durations come from.
    pub(super) fn known(&self) -> Known {
        self.known
    }

    /// Whether enough attempts have ended that what is foreseen of others will hold.
    pub(super) fn are_settled(&self) -> bool {
        let ended = |scope| self.ledger.attempt_seconds(scope).1;
        [Scope::Test, Scope::File, Scope::Suite].into_iter().map(ended).sum::<u64>() >= SETTLED as u64
    }

    /// What an attempt on the whole suite costs, if one was measured.
    pub(super) fn suite(&self) -> Option<f64> {
        self.suite
    }

    /// Seconds of the test at `place`; 0 if nothing was ever measured.
    pub(super) fn seconds_at(&self, place: usize) -> f64 {
        self.tests[place]
    }

    /// Seconds of `test`; 0 if it is not listed, or nothing was ever measured.
    pub(super) fn seconds_of(&self, test: &TestId) -> f64 {
        self.ledger.place(test).map_or(0.0, |place| self.seconds_at(place))
    }

    /// Seconds of these tests together, without a start.
    pub(super) fn in_tests<'t>(&self, tests: impl IntoIterator<Item = &'t TestId>) -> f64 {
        tests.into_iter().map(|test| self.seconds_of(test)).sum()
    }

    /// Seconds of an attempt that are not its tests'; a guess before one was measured.
    pub(super) fn overhead(&self, scope: Scope) -> f64 {
        self.overhead[place(scope)].unwrap_or(GUESSED_OVERHEAD)
    }

    /// How many runs of a test among others make up for one that ends the attempt, on average in its middle, so that
    /// the rest is run again: each saves a start for itself.
    pub(super) fn runs_for_an_interruption(&self) -> u32 {
        let lost = self.overhead(Scope::Suite) + 0.5 * self.suite.unwrap_or(0.0);
        let runs = (INTERRUPTION_SAVES * lost / self.overhead(Scope::Test)).ceil();
        (runs as u32).max(RUNS_FOR_AN_INTERRUPTION)
    }

    /// What running `test` alone costs.
    pub(super) fn alone(&self, test: &TestId) -> Option<f64> {
        Some(self.overhead[place(Scope::Test)]? + self.seconds_of(test))
    }

    /// What `spec` costs.
    pub(super) fn of(&self, spec: &AttemptSpec) -> Option<f64> {
        let plain = match &spec.tests {
            Selection::All => self.suite,
            Selection::Only(tests) => Some(self.overhead[place(spec.scope)]? + self.in_tests(tests.iter())),
        };
        plain.map(|seconds| seconds * f64::from(spec.treatment.world.slowdown()))
    }

    /// What is foreseen of the attempts that are under way and of those of `jobs`.
    pub(super) fn remaining(&self, jobs: &[PlannedJob]) -> Estimate {
        let under_way =
            self.ledger.each_attempt().filter(|attempt| attempt.standing == Standing::Outstanding);
        let planned = jobs.iter().flat_map(|job| &job.attempts);
        let mut estimate = Estimate::default();
        for spec in under_way.filter_map(|attempt| attempt.spec).chain(planned) {
            estimate.attempts += 1;
            estimate.container_seconds += self.of(spec).unwrap_or(0.0);
        }
        estimate
    }
}

fn place(scope: Scope) -> usize {
    match scope {
        Scope::Test => 0,
        Scope::File => 1,
        Scope::Suite => 2,
    }
}
