//! What a part of a repair may cost, over all the questions that it asks. The clock is the caller's.

use crate::experiment::Budget;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU64;
use std::time::Duration;

/// A budget, and what was spent of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Purse {
    budget: Option<Budget>,
    clock: Duration,
    container_seconds: f64,
    attempts: u64,
}

/// What is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// As much as is wanted.
    Everything,
    /// This much.
    Some(Budget),
    /// Nothing.
    Nothing,
}

impl Purse {
    /// With a budget, or without a bound.
    pub fn of(budget: Option<Budget>) -> Self {
        Self { budget, clock: Duration::ZERO, container_seconds: 0.0, attempts: 0 }
    }

    /// What it could cost.
    pub fn budget(&self) -> Option<Budget> {
        self.budget
    }

    /// Notes what one question took.
    pub fn spend(&mut self, clock: Duration, container_seconds: f64, attempts: u64) {
        self.clock += clock;
        self.container_seconds += container_seconds.max(0.0);
        self.attempts += attempts;
    }

    /// What the next question may cost; less than a second is nothing.
    pub fn left(&self) -> Left {
        let time = |all: Duration, spent: Duration, kind: fn(Duration) -> Budget| {
            let left = Duration::from_secs(all.saturating_sub(spent).as_secs());
            if left.is_zero() { Left::Nothing } else { Left::Some(kind(left)) }
        };
        match self.budget {
            None => Left::Everything,
            Some(Budget::Clock(all)) => time(all, self.clock, Budget::Clock),
            Some(Budget::Container(all)) => {
                let spent = Duration::try_from_secs_f64(self.container_seconds).unwrap_or(Duration::MAX);
                time(all, spent, Budget::Container)
            }
            Some(Budget::Attempts(all)) => NonZeroU64::new(all.get().saturating_sub(self.attempts))
                .map_or(Left::Nothing, |left| Left::Some(Budget::Attempts(left))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_budget_is_spent_in_its_own_currency() {
        #[track_caller]
        fn check(budget: &str, expect: Option<&str>) {
            let mut purse = Purse::of(Some(budget.parse().unwrap()));
            purse.spend(Duration::from_millis(1_500), 20.0, 7);
            purse.spend(Duration::from_millis(1_600), 10.5, 2);
            let expect = expect.map_or(Left::Nothing, |left| Left::Some(left.parse().unwrap()));
            assert_eq!(purse.left(), expect, "{budget}");
        }
        check("10s", Some("6s"));
        check("3s", None);
        check("container:1m", Some("container:29s"));
        check("container:30s", None);
        check("attempts:10", Some("attempts:1"));
        check("attempts:9", None);
        assert_eq!(Purse::of(None).left(), Left::Everything);
    }
}
