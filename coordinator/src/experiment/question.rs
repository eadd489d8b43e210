//! What a sweep asks: which tests, how many runs or what guarantee, and the numbers a user may
//! choose. Everything here is valid by construction: what cannot be promised is refused with what
//! can be.

use super::budget::Budget;
use super::certainty::{Confidence, Rate, clean_runs_needed};
use super::error::QuestionError;
use super::filter::{TestFilter, matches};
use super::request::{BisectRequest, Rerun, ValidateRequest};
use super::sandbox::SandboxChoice;
use flakefarm_shared::{Capabilities, Order, TestId, World};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};
use std::str::FromStr;

/// Most runs of a test for the suite's guarantee, in terms of what each test's takes.
const MOST_RUNS: u32 = 4;

/// A question about some tests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// What is asked.
    pub kind: QuestionKind,
    /// How many runs each test gets.
    pub runs: Runs,
    /// What one attempt runs.
    pub scope: ScopeChoice,
    /// The one order of all attempts on the suite; none for a mix of orders.
    #[serde(default)]
    pub order: Option<Order>,
    /// Where all randomness of the sweep comes from.
    pub seed: u64,
    /// How sure verdicts are to be.
    pub confidence: Confidence,
    /// The flake rate from which on a test that flakes must be seen.
    pub max_flake_rate: Rate,
    /// Of what the confidence speaks: each test, or the suite.
    #[serde(default)]
    pub guarantee: Guarantee,
    /// What the sweep may cost; none: what the answer takes.
    #[serde(default)]
    pub budget: Option<Budget>,
    /// Attempts the farm can run at once: a hint for the size of jobs, not a limit.
    pub workers: NonZeroU16,
    /// Which tests; everything the framework lists if empty.
    pub tests: TestFilter,
    /// How attempts are isolated.
    #[serde(default)]
    pub sandbox: SandboxChoice,
    /// Worlds to try before anything is repeated.
    #[serde(default)]
    pub panel: Vec<World>,
    /// [`Question::tests`] as they were given, where files among them were replaced by the tests in these.
    #[serde(skip)]
    pub tests_as_given: Option<TestFilter>,
    /// What the project's framework can do: nothing else is planned. Known once the tests are listed.
    #[serde(skip)]
    pub able: Capabilities,
    /// Tests that failed elsewhere are run again, each alone, and no longer than it takes to decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun: Option<Box<Rerun>>,
}

impl Question {
    /// Whether the tests of a project are flaky, of everything and with every default: its orders only,
    /// no panel.
    pub fn detect(seed: u64) -> Self {
        Self {
            kind: QuestionKind::Detect,
            runs: Runs::Adaptive,
            scope: ScopeChoice::Auto,
            order: None,
            seed,
            confidence: Confidence::DEFAULT,
            max_flake_rate: Rate::DEFAULT,
            guarantee: Guarantee::default(),
            budget: None,
            workers: NonZeroU16::MIN,
            tests: TestFilter::default(),
            sandbox: SandboxChoice::default(),
            panel: Vec::new(),
            tests_as_given: None,
            able: Capabilities::everything(),
            rerun: None,
        }
    }

    /// `order` if the framework can give it, else its own.
    pub fn in_order(&self, order: Order) -> Order {
        if self.able.can_order(order) { order } else { Order::Given }
    }

    /// The tests of a listing that the question is about, in the listing's order.
    pub fn select(&self, tests: &[TestId]) -> Vec<TestId> {
        tests.iter().filter(|test| self.tests.selects(test)).cloned().collect()
    }

    /// Of `tests`, those that are asked about and those that run with them in the orders of a job.
    pub fn looked_at(&self, tests: &[TestId]) -> Vec<TestId> {
        let selected = self.select(tests);
        let Some(rerun) = &self.rerun else { return selected };
        let wanted: HashSet<&TestId> = selected.iter().chain(rerun.orders.iter().flatten()).collect();
        tests.iter().filter(|test| wanted.contains(test)).cloned().collect()
    }

    /// The tests of a listing that the question wants an answer for, in the listing's order: those
    /// it is about, or of these those that are to be diagnosed or mended. A name that is a test's whole id
    /// means that test alone.
    pub fn targets(&self, tests: &[TestId]) -> Vec<TestId> {
        let selected = self.select(tests);
        let wanted = match &self.kind {
            QuestionKind::Detect => return selected,
            QuestionKind::Bisect(request) => {
                return selected.into_iter().filter(|test| *test == request.test).collect();
            }
            QuestionKind::Validate(request) if request.tests.is_everything() => return selected,
            QuestionKind::Validate(request) => &request.tests,
            QuestionKind::Diagnose { tests } => tests,
        };
        let named: Vec<(&String, bool)> =
            wanted.0.iter().map(|name| (name, selected.iter().any(|test| test.0 == *name))).collect();
        let wants = |test: &TestId| {
            named.iter().any(
                |(name, whole)| {
                    if *whole { test.0 == **name } else { matches(name, test.as_str()) }
                },
            )
        };
        selected.into_iter().filter(wants).collect()
    }

    /// Names of tests that no selected test of the listing goes by.
    pub fn unmatched(&self, tests: &[TestId]) -> Vec<String> {
        let selected = self.select(tests);
        let wanted = match &self.kind {
            QuestionKind::Detect => return Vec::new(),
            QuestionKind::Diagnose { tests } => tests,
            QuestionKind::Validate(request) => &request.tests,
            QuestionKind::Bisect(request) if selected.contains(&request.test) => return Vec::new(),
            QuestionKind::Bisect(request) => return vec![request.test.0.clone()],
        };
        let unknown =
            |name: &&String| !selected.iter().any(|test| test.0 == **name || matches(name, test.as_str()));
        wanted.0.iter().filter(unknown).cloned().collect()
    }

    /// Runs every test is to get, or, of an adaptive sweep, the most that a test without failures can
    /// need.
    pub fn runs_per_test(&self) -> u32 {
        match self.runs {
            Runs::Fixed(runs) => runs.get(),
            Runs::Adaptive => self.runs_for_guarantee(),
        }
    }

    /// Most clean runs that an adaptive sweep can want of a test. For the suite's guarantee cheap tests
    /// are worth more runs than the guarantee of each test takes, and expensive ones fewer.
    pub fn most_runs(&self) -> u32 {
        match self.guarantee {
            Guarantee::PerTest => self.runs_for_guarantee(),
            Guarantee::PerSuite => MOST_RUNS * self.runs_for_guarantee(),
        }
    }

    /// Clean runs after which a test is proved to flake less often than [`Question::max_flake_rate`].
    pub fn runs_for_guarantee(&self) -> u32 {
        clean_runs_needed(self.max_flake_rate, self.confidence)
    }
}

/// The kind of a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuestionKind {
    /// Is it flaky?
    Detect,
    /// Why is it flaky?
    Diagnose {
        /// Which tests; the others are their neighbours.
        tests: TestFilter,
    },
    /// Which revision made it flaky?
    Bisect(Box<BisectRequest>),
    /// Does a patch mend it?
    Validate(Box<ValidateRequest>),
}

/// How many runs each test gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Runs {
    /// So many.
    Fixed(NonZeroU32),
    /// As many as its answer takes, which differs from test to test.
    #[serde(alias = "for_guarantee")]
    Adaptive,
}

/// Of what the confidence of a sweep speaks. The two are different promises and cost differently.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guarantee {
    /// Of each test by itself: had it flaked at the rate or above, it would have been seen.
    #[default]
    PerTest,
    /// Of the suite: such a share of the tests that flake at the rate or above is found, given how
    /// failure rates are spread.
    PerSuite,
}

impl Guarantee {
    /// Both, in the order help texts list them.
    pub const ALL: [Guarantee; 2] = [Guarantee::PerTest, Guarantee::PerSuite];

    /// The stable word used on the command line and in reports.
    pub fn word(self) -> &'static str {
        match self {
            Guarantee::PerTest => "test",
            Guarantee::PerSuite => "suite",
        }
    }
}

impl FromStr for Guarantee {
    type Err = QuestionError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Guarantee::ALL
            .into_iter()
            .find(|guarantee| guarantee.word() == text)
            .ok_or_else(|| QuestionError::Guarantee(text.to_owned()))
    }
}

/// What one attempt runs, as users choose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScopeChoice {
    /// Every test alone.
    Test,
    /// Every file alone.
    File,
    /// The suite, in several orders.
    Suite,
    /// The suite in several orders first, then what is suspicious alone.
    Auto,
}

impl ScopeChoice {
    /// All choices, in the order help texts list them.
    pub const ALL: [ScopeChoice; 4] =
        [ScopeChoice::Test, ScopeChoice::File, ScopeChoice::Suite, ScopeChoice::Auto];

    /// The stable word used on the command line.
    pub fn word(self) -> &'static str {
        match self {
            ScopeChoice::Test => "test",
            ScopeChoice::File => "file",
            ScopeChoice::Suite => "suite",
            ScopeChoice::Auto => "auto",
        }
    }
}

impl fmt::Display for ScopeChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for ScopeChoice {
    type Err = QuestionError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        ScopeChoice::ALL
            .into_iter()
            .find(|choice| choice.word() == text)
            .ok_or_else(|| QuestionError::Scope(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_survives_json() {
        let question = Question {
            workers: NonZeroU16::new(4).unwrap(),
            tests: TestFilter(vec!["a*".into()]),
            sandbox: SandboxChoice::Auto,
            panel: World::catalogue().to_vec(),
            ..Question::detect(u64::MAX)
        };
        assert_eq!(question.runs_per_test(), 59);
        let text = serde_json::to_string(&question).unwrap();
        assert_eq!(serde_json::from_str::<Question>(&text).unwrap(), question);
    }
}
