//! What attempts cost, learnt from those that ended. Costs shape jobs and budgets; they never
//! decide what a sweep means.

use super::{Ledger, Observation};
use flakefarm_shared::{AttemptSpec, Scope, Selection, TestId};
use std::collections::HashMap;

/// Shortest start of a sandbox that is believed, in seconds.
const LEAST_OVERHEAD: f64 = 0.05;

/// Expected container seconds.
pub(super) struct Costs<'a> {
    tests: HashMap<&'a TestId, f64>,
    /// Mean over tests, for those never seen.
    any_test: f64,
    /// Seconds of an attempt that are not its tests'; none before anything was measured.
    overhead: [Option<f64>; 3],
    suite: Option<f64>,
}

impl<'a> Costs<'a> {
    pub(super) fn learn(ledger: &'a Ledger) -> Self {
        let mut tests = HashMap::new();
        let mut in_tests = [0.0; 3];
        for test in ledger.tests() {
            let observations: Vec<&Observation> = ledger.plain(test).collect();
            if observations.is_empty() {
                continue;
            }
            let seconds = |observation: &Observation| observation.wall_us as f64 / 1e6;
            for observation in &observations {
                in_tests[place(observation.scope)] += seconds(observation);
            }
            let total: f64 = observations.iter().map(|observation| seconds(observation)).sum();
            tests.insert(test, total / observations.len() as f64);
        }
        // Summed in listing order: a sum over a hash map would differ from run to run.
        let sum: f64 = ledger.tests().iter().filter_map(|test| tests.get(test)).sum();
        let any_test = if tests.is_empty() { 0.0 } else { sum / tests.len() as f64 };
        let measured = [Scope::Test, Scope::File, Scope::Suite].map(|scope| ledger.attempt_seconds(scope));
        let own = |scope: Scope| {
            let (seconds, count) = measured[place(scope)];
            (count > 0).then(|| ((seconds - in_tests[place(scope)]) / count as f64).max(LEAST_OVERHEAD))
        };
        let (test, file, suite) = (own(Scope::Test), own(Scope::File), own(Scope::Suite));
        Self {
            tests,
            any_test,
            overhead: [test.or(file).or(suite), file.or(suite).or(test), suite.or(file).or(test)],
            suite: ledger.mean_attempt_seconds(Scope::Suite),
        }
    }

    /// What an attempt on the whole suite costs, if one was measured.
    pub(super) fn suite(&self) -> Option<f64> {
        self.suite
    }

    /// What running `test` alone costs.
    pub(super) fn alone(&self, test: &TestId) -> Option<f64> {
        Some(self.overhead[place(Scope::Test)]? + self.seconds_of(test))
    }

    /// What `spec` costs.
    pub(super) fn of(&self, spec: &AttemptSpec) -> Option<f64> {
        let plain = match &spec.tests {
            Selection::All => self.suite,
            Selection::Only(tests) => {
                let in_tests: f64 = tests.iter().map(|test| self.seconds_of(test)).sum();
                Some(self.overhead[place(spec.scope)]? + in_tests)
            }
        };
        plain.map(|seconds| seconds * f64::from(spec.world.slowdown()))
    }

    fn seconds_of(&self, test: &TestId) -> f64 {
        self.tests.get(test).copied().unwrap_or(self.any_test)
    }
}

fn place(scope: Scope) -> usize {
    match scope {
        Scope::Test => 0,
        Scope::File => 1,
        Scope::Suite => 2,
    }
}
