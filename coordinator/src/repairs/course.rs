//! The course of one repair: which proposals may be tried, and which may be written. The same patch is never
//! tried twice, and no test takes more attempts than it may.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

/// What a repair keeps to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// Experiments that proposals for one test may take.
    pub attempts: NonZeroU32,
    /// What is proved is written without a person looking at it only if it is at least as sure to be what was
    /// meant: 0 to 1.
    pub threshold: f64,
}

impl Default for Rules {
    fn default() -> Self {
        Self { attempts: NonZeroU32::new(3).expect("not 0"), threshold: 0.7 }
    }
}

/// Why a proposal is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Passed {
    /// The same change was tried before.
    TriedBefore,
    /// Its tests have had their attempts.
    NoAttemptsLeft,
}

/// What was tried so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// Patches, by what tells them apart.
    patches: BTreeSet<String>,
    /// Experiments by test; of all that fail under the empty name.
    attempts: BTreeMap<String, u32>,
}

impl Course {
    /// Whether a patch for these tests may be tried; none of them named: all that fail.
    pub fn may_try(&self, rules: &Rules, patch: &str, tests: &[String]) -> Result<(), Passed> {
        if self.patches.contains(patch) {
            return Err(Passed::TriedBefore);
        }
        let spent = |test: &str| self.attempts.get(test).copied().unwrap_or(0);
        let most = if tests.is_empty() {
            spent("")
        } else {
            tests.iter().map(|test| spent(test)).max().unwrap_or(0)
        };
        if most >= rules.attempts.get() { Err(Passed::NoAttemptsLeft) } else { Ok(()) }
    }

    /// Whether a patch was tried or refused before.
    pub fn knows(&self, patch: &str) -> bool {
        self.patches.contains(patch)
    }

    /// Notes that it is tried.
    pub fn tries(&mut self, patch: &str, tests: &[String]) {
        self.patches.insert(patch.to_owned());
        let all = [String::new()];
        for test in if tests.is_empty() { &all[..] } else { tests } {
            *self.attempts.entry(test.clone()).or_insert(0) += 1;
        }
    }

    /// Notes a patch that was refused, so that it is not proposed for an experiment again.
    pub fn refuses(&mut self, patch: &str) {
        self.patches.insert(patch.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_patch_is_tried_twice_and_no_test_takes_more_than_it_may() {
        let rules = Rules { attempts: NonZeroU32::new(2).unwrap(), ..Rules::default() };
        let (a, b) = (["a".to_owned()], ["a".to_owned(), "b".to_owned()]);
        let mut course = Course::default();
        assert_eq!(course.may_try(&rules, "p1", &a), Ok(()));
        course.tries("p1", &a);
        assert_eq!(course.may_try(&rules, "p1", &["c".to_owned()]), Err(Passed::TriedBefore));
        course.tries("p2", &b);
        assert_eq!(course.may_try(&rules, "p3", &a), Err(Passed::NoAttemptsLeft));
        assert_eq!(course.may_try(&rules, "p3", &b), Err(Passed::NoAttemptsLeft));
        assert_eq!(course.may_try(&rules, "p3", &["b".to_owned()]), Ok(()));
        assert_eq!(course.may_try(&rules, "p3", &[]), Ok(()), "those that fail have attempts of their own");
        course.refuses("p4");
        assert_eq!(course.may_try(&rules, "p4", &[]), Err(Passed::TriedBefore));
        // What is kept of it is read again.
        let kept = serde_json::to_string(&course).unwrap();
        assert_eq!(serde_json::from_str::<Course>(&kept).unwrap(), course);
    }
}
