//! What a sweep asks: which tests, how many runs or what guarantee, and the numbers a user may
//! choose. Everything here is valid by construction: what cannot be promised is refused with what
//! can be.

use super::budget::Budget;
use super::level::SandboxChoice;
use crate::diagnose::bisect::BisectRequest;
use crate::score::interval::clean_runs_needed;
use flakefarm_shared::{Order, TestId, World};
use serde::{Deserialize, Serialize};
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
        }
    }

    /// The tests of a listing that the question is about, in the listing's order.
    pub fn select(&self, tests: &[TestId]) -> Vec<TestId> {
        tests.iter().filter(|test| self.tests.selects(test)).cloned().collect()
    }

    /// The tests of a listing that the question wants an answer for, in the listing's order: those
    /// it is about, or of these those that are to be diagnosed. A name that is a test's whole id
    /// means that test alone.
    pub fn targets(&self, tests: &[TestId]) -> Vec<TestId> {
        let selected = self.select(tests);
        match &self.kind {
            QuestionKind::Detect => selected,
            QuestionKind::Diagnose { tests: wanted } => {
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
            QuestionKind::Bisect(request) => {
                selected.into_iter().filter(|test| *test == request.test).collect()
            }
        }
    }

    /// Names of tests to be diagnosed that no selected test of the listing goes by.
    pub fn unmatched(&self, tests: &[TestId]) -> Vec<String> {
        let selected = self.select(tests);
        let wanted = match &self.kind {
            QuestionKind::Detect => return Vec::new(),
            QuestionKind::Diagnose { tests } => tests,
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

/// What a question cannot ask, and what it can ask instead.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum QuestionError {
    /// No number of runs gives certainty.
    #[error(
        "a confidence of {0} is not possible: choose one above 0 and at most {max}, such as 0.95 or 0.99",
        max = Confidence::MAX
    )]
    Confidence(f64),
    /// No number of runs proves that a test never flakes.
    #[error(
        "a flake rate of {0} is not possible: no number of runs proves that a test never flakes; choose at \
         least {min} and less than 1, such as 0.05 (59 clean runs at 95 %) or 0.01 (299)",
        min = Rate::MIN
    )]
    Rate(f64),
    /// Not a scope.
    #[error("`{0}` is not a scope: choose `test`, `file`, `suite` or `auto`")]
    Scope(String),
    /// Not a guarantee.
    #[error("`{0}` is not a guarantee: choose `test` (of each test) or `suite` (of the suite as a whole)")]
    Guarantee(String),
    /// Not a budget.
    #[error(
        "`{0}` is not a budget: write a time on the clock (10m), container time (container:2h) or a number of \
         attempts (attempts:500)"
    )]
    Budget(String),
    /// It does not pay for a first look.
    #[error("a budget of {budget} does not pay for one run of every test: that takes {least}")]
    TooSmall {
        /// What was offered.
        budget: Budget,
        /// What would do.
        least: Budget,
    },
    /// Nothing can be done with it.
    #[error("a budget of {0} buys nothing: choose at least 1 second, or 1 attempt")]
    NoBudget(String),
}

/// A probability of being right, within (0, 1).
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Confidence(f64);

impl Confidence {
    /// The highest that can be asked for.
    pub const MAX: f64 = 0.999_999;
    /// 95 %, the default.
    pub const DEFAULT: Confidence = Confidence(0.95);

    /// Refuses what no number of runs can give.
    pub fn new(value: f64) -> Result<Self, QuestionError> {
        if value > 0.0 && value <= Self::MAX {
            Ok(Self(value))
        } else {
            Err(QuestionError::Confidence(value))
        }
    }

    /// The value.
    pub fn get(self) -> f64 {
        self.0
    }

    /// The probability of being wrong, 1 minus this.
    pub fn risk(self) -> f64 {
        1.0 - self.0
    }
}

impl TryFrom<f64> for Confidence {
    type Error = QuestionError;
    fn try_from(value: f64) -> Result<Self, Self::Error> {
        Self::new(value)
    }
}

impl From<Confidence> for f64 {
    fn from(confidence: Confidence) -> f64 {
        confidence.0
    }
}

/// A flake rate, within (0, 1).
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Rate(f64);

impl Rate {
    /// The lowest that can be asked for: below it, a test would need millions of runs.
    pub const MIN: f64 = 0.000_01;
    /// 5 %, the default.
    pub const DEFAULT: Rate = Rate(0.05);

    /// Refuses what no number of runs can prove.
    pub fn new(value: f64) -> Result<Self, QuestionError> {
        if (Self::MIN..1.0).contains(&value) { Ok(Self(value)) } else { Err(QuestionError::Rate(value)) }
    }

    /// The value.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Rate {
    type Error = QuestionError;
    fn try_from(value: f64) -> Result<Self, Self::Error> {
        Self::new(value)
    }
}

impl From<Rate> for f64 {
    fn from(rate: Rate) -> f64 {
        rate.0
    }
}

/// Which tests a question is about. A pattern with `*` (any text) or `?` (any character) must match
/// the whole id; any other pattern is looked for within it. Brackets mean themselves: parametrised
/// ids are full of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TestFilter(pub Vec<String>);

impl TestFilter {
    /// Whether every test is selected.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// The patterns as one line for people.
    pub fn describe(&self) -> String {
        if self.is_everything() { "every test".to_owned() } else { self.0.join(", ") }
    }

    /// Whether `test` is selected.
    pub fn selects(&self, test: &TestId) -> bool {
        self.is_everything() || self.0.iter().any(|pattern| matches(pattern, test.as_str()))
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    if !pattern.contains(['*', '?']) {
        return text.contains(pattern);
    }
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // The usual walk with one way back: to the last star, with one more character under it.
    let (mut p, mut t) = (0, 0);
    let mut way_back: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                way_back = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            Some(_) | None => match way_back {
                Some((star, covered)) => {
                    way_back = Some((star, covered + 1));
                    p = star + 1;
                    t = covered + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_substrings_or_globs() {
        #[track_caller]
        fn check(pattern: &str, text: &str, expect: bool) {
            let filter = TestFilter(vec![pattern.to_owned()]);
            assert_eq!(filter.selects(&TestId::from(text)), expect, "{pattern} on {text}");
        }
        check("test_a", "tests/test_a.py::test_b", true);
        check("test_c", "tests/test_a.py::test_b", false);
        check("test_a[1-x]", "tests/test_a.py::test_a[1-x]", true);
        check("tests/*::test_b", "tests/test_a.py::test_b", true);
        check("*::test_?", "tests/test_a.py::test_b", true);
        check("*::test_?", "tests/test_a.py::test_bc", false);
        check("*a*b*", "xaxxbx", true);
        check("tests/*", "other/tests/x", false);
        check("*", "", true);
        assert!(TestFilter::default().selects(&TestId::from("anything")));
    }

    #[test]
    fn impossible_wishes_are_refused_with_what_is_possible() {
        for value in [0.0, 1.0, -1.0, 1.5, f64::NAN, f64::INFINITY] {
            assert!(Confidence::new(value).is_err(), "{value}");
            assert!(Rate::new(value).is_err(), "{value}");
        }
        assert!(Confidence::new(1.0).unwrap_err().to_string().contains("0.95"));
        assert!(Rate::new(0.0).unwrap_err().to_string().contains("0.05"));
        assert!("module".parse::<ScopeChoice>().unwrap_err().to_string().contains("suite"));
        assert!(serde_json::from_str::<Confidence>("1.0").is_err());
        assert_eq!(serde_json::from_str::<Rate>("0.05").unwrap(), Rate::DEFAULT);
    }

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
