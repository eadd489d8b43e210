//! What is new of a project's tests this week: newly flaky, worse, better, gone. Pure.
//!
//! Counts of one test and treatment class in the last [`WEEK`] days are compared with those of the
//! [`BEFORE`] days before. Fisher's exact test has to say that chance does not explain the difference, with
//! [`CHANCE`] for a single test: this is a list for people to look at, not a proof.

use crate::score::chance_of_difference;
use serde::{Deserialize, Serialize};

/// Days that are new.
pub const WEEK: i64 = 7;
/// Days that they are compared with.
pub const BEFORE: i64 = 28;
/// Chance from which on a difference is none.
pub const CHANCE: f64 = 0.01;

/// What became of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Move {
    /// It failed and passed this week, and never failed before.
    New,
    /// It fails more often.
    Worse,
    /// It fails less often, but still does.
    Better,
    /// It failed before and does not any more: it ran often enough to say so, or is not run any more.
    Gone,
}

impl Move {
    /// In the order they are shown.
    pub const ALL: [Move; 4] = [Move::New, Move::Worse, Move::Better, Move::Gone];

    /// The stable word.
    pub fn word(self) -> &'static str {
        match self {
            Move::New => "new",
            Move::Worse => "worse",
            Move::Better => "better",
            Move::Gone => "gone",
        }
    }
}

/// Runs and failures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunsSeen {
    /// Passes and failures.
    pub runs: u64,
    /// Failures.
    pub failures: u64,
}

impl RunsSeen {
    fn is_flaky(self) -> bool {
        self.failures > 0 && self.failures < self.runs
    }

    fn rate(self) -> f64 {
        if self.runs == 0 { 0.0 } else { self.failures as f64 / self.runs as f64 }
    }

    fn count(self) -> (u32, u32) {
        let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        (count(self.failures), count(self.runs))
    }
}

/// What became of a test that ran like `before` and this week like `now`; none if nothing did.
pub fn of(before: RunsSeen, now: RunsSeen) -> Option<Move> {
    if before.failures == 0 {
        return now.is_flaky().then_some(Move::New);
    }
    // One that always failed is broken, not flaky; that it passes again is still news.
    if now.runs == 0 {
        return before.is_flaky().then_some(Move::Gone);
    }
    let by_chance = chance_of_difference(before.count(), now.count()) >= CHANCE;
    match (by_chance, now.failures) {
        (true, _) => None,
        (false, 0) => Some(Move::Gone),
        (false, _) if now.rate() > before.rate() => Some(Move::Worse),
        (false, _) => Some(Move::Better),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_move() {
        let check = |before: (u64, u64), now: (u64, u64), expect: Option<Move>| {
            let seen = |(failures, runs): (u64, u64)| RunsSeen { runs, failures };
            assert_eq!(of(seen(before), seen(now)), expect, "{before:?} {now:?}");
        };
        check((0, 500), (1, 100), Some(Move::New));
        check((0, 0), (2, 5), Some(Move::New));
        check((0, 500), (100, 100), None);
        check((0, 500), (0, 100), None);
        check((5, 500), (20, 100), Some(Move::Worse));
        check((250, 500), (10, 100), Some(Move::Better));
        check((100, 500), (0, 100), Some(Move::Gone));
        check((100, 500), (0, 0), Some(Move::Gone));
        check((5, 500), (0, 100), None);
        check((5, 500), (1, 100), None);
        check((500, 500), (0, 100), Some(Move::Gone));
        check((500, 500), (0, 0), None);
    }
}
