//! How long tests stay red: from the first failure to green, over all cases, those that are still open
//! among them. Pure.
//!
//! A *case* opens with a test's first failure and closes with the first clean day (or hour, where hours are
//! known) after its last one; failures that come within [`QUIET`] days of one another are of one case,
//! since a flaky test is green between two failures without being mended. A case whose last failure is younger
//! is open, as is one whose test has not run since: it lasted at least up to what was last seen of it, and is
//! counted as such (Kaplan and Meier 1958). Leaving open cases out would make the mean the shorter the worse
//! things are.

use serde::{Deserialize, Serialize};

/// Clean days after which a case is over.
pub const QUIET: i64 = 7;

/// A day of a test, or another unit of time: runs and failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayCount {
    /// The day, counted from the epoch.
    pub day: i64,
    /// Passes and failures.
    pub runs: u64,
    /// Failures.
    pub failures: u64,
}

/// A case: a test that was red.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// The day of its first failure.
    pub first_red: i64,
    /// The day of its last failure.
    pub last_red: i64,
    /// Up to when it was followed.
    pub end: End,
}

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Green from this day on.
    Green(i64),
    /// Perhaps not over: up to this day it was red, and what came since is too little to say.
    Open(i64),
}

/// The cases of a test, from its days in the order of time; `today` is the last day that is known.
pub fn cases(days: &[DayCount], today: i64) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for day in days.iter().filter(|day| day.runs > 0) {
        let open = cases.last_mut().filter(|case| day.day - case.last_red <= QUIET);
        match (day.failures > 0, open) {
            (true, Some(case)) => {
                case.last_red = day.day;
                case.end = End::Open(day.day);
            }
            (true, None) => {
                cases.push(Case { first_red: day.day, last_red: day.day, end: End::Open(day.day) });
            }
            (false, _) => {
                // Of the case that is open, however long it was not run.
                if let Some(case) = cases.last_mut().filter(|case| matches!(case.end, End::Open(_))) {
                    case.end = End::Green(day.day);
                }
            }
        }
    }
    for case in &mut cases {
        if let End::Green(day) = case.end
            && today - case.last_red < QUIET
        {
            case.end = End::Open(day);
        }
    }
    cases
}

/// How long one case lasted, in days, and whether it is over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lasted {
    /// Days.
    pub days: f64,
    /// Whether it came to an end.
    pub over: bool,
}

/// How long cases last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    /// All cases.
    pub cases: u64,
    /// Those that are open.
    pub open: u64,
    /// The mean time from first red to green in days; none without cases. Where the longest case is open it
    /// is a lower bound, since nobody knows how long that one will last.
    pub mean_days: Option<f64>,
    /// Whether the mean is a lower bound.
    pub mean_is_lower_bound: bool,
    /// Half of all cases last no longer; none if that is not reached yet.
    pub p50_days: Option<f64>,
    /// Nine of ten cases last no longer; none if that is not reached yet.
    pub p90_days: Option<f64>,
}

impl Recovery {
    /// By Kaplan and Meier's estimate; the mean is the area under it up to the longest case.
    pub fn of(cases: &[Lasted]) -> Self {
        let mut sorted: Vec<Lasted> = cases.to_vec();
        // Where a case ends as another is last seen open, the end comes first.
        sorted.sort_by(|a, b| a.days.total_cmp(&b.days).then(b.over.cmp(&a.over)));
        let (mut surviving, mut mean, mut before) = (1.0, 0.0, 0.0);
        let (mut p50, mut p90) = (None, None);
        for (at_risk, case) in (1..=sorted.len()).rev().zip(&sorted) {
            mean += surviving * (case.days - before);
            before = case.days;
            if case.over {
                surviving *= 1.0 - 1.0 / at_risk as f64;
                // What is left of rounding is nothing.
                p50 = p50.or((surviving <= 0.5 + 1e-9).then_some(case.days));
                p90 = p90.or((surviving <= 0.1 + 1e-9).then_some(case.days));
            }
        }
        Self {
            cases: sorted.len() as u64,
            open: sorted.iter().filter(|case| !case.over).count() as u64,
            mean_days: (!sorted.is_empty()).then_some(mean),
            mean_is_lower_bound: surviving > 1e-9 && !sorted.is_empty(),
            p50_days: p50,
            p90_days: p90,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A letter per day: `g`reen, `r`ed, `m`ixed, `-` not run.
    #[track_caller]
    fn check(days: &str, expect: &[(i64, i64, End)]) {
        let counts: Vec<DayCount> = (0..)
            .zip(days.chars())
            .filter_map(|(day, letter)| {
                let failures = match letter {
                    'g' => 0,
                    'r' => 10,
                    'm' => 1,
                    _ => return None,
                };
                Some(DayCount { day, runs: 10, failures })
            })
            .collect();
        let found: Vec<(i64, i64, End)> = cases(&counts, days.len() as i64 - 1)
            .iter()
            .map(|case| (case.first_red, case.last_red, case.end))
            .collect();
        assert_eq!(found, expect, "{days}");
    }

    #[test]
    fn a_case_is_from_the_first_red_to_green() {
        check("gggrrrggggggggg", &[(3, 5, End::Green(6))]);
        check("ggmgmggggggggggg", &[(2, 4, End::Green(5))]);
        check("gggr", &[(3, 3, End::Open(3))]);
        check("gggrggg", &[(3, 3, End::Open(4))]);
        check("gggr---------", &[(3, 3, End::Open(3))]);
        check("rgggggggggrggggggggg", &[(0, 0, End::Green(1)), (10, 10, End::Green(11))]);
        check("r--------------g", &[(0, 0, End::Green(15))]);
        check("gggggg", &[]);
        check("", &[]);
    }

    fn lasted(days: &[(f64, bool)]) -> Vec<Lasted> {
        days.iter().map(|(days, over)| Lasted { days: *days, over: *over }).collect()
    }

    #[test]
    fn open_cases_are_counted_as_such() {
        let all_over = Recovery::of(&lasted(&[(1.0, true), (2.0, true), (3.0, true), (10.0, true)]));
        assert_eq!((all_over.mean_days, all_over.mean_is_lower_bound), (Some(4.0), false));
        assert_eq!((all_over.p50_days, all_over.p90_days), (Some(2.0), Some(10.0)));
        let open = Recovery::of(&lasted(&[(1.0, true), (2.0, true), (3.0, true), (10.0, false)]));
        assert_eq!((open.open, open.mean_days, open.mean_is_lower_bound), (1, Some(4.0), true));
        assert_eq!((open.p50_days, open.p90_days), (Some(2.0), None));
        // The example of Kaplan and Meier's paper: 8 cases, of which 0.8, 3.1, 5.4 and 9.2 ended.
        let example = [
            (0.8, true),
            (1.0, false),
            (2.7, false),
            (3.1, true),
            (5.4, true),
            (7.0, false),
            (9.2, true),
            (12.1, false),
        ];
        let found = Recovery::of(&lasted(&example));
        // S = 7/8, 7/10, 21/40, 21/80.
        let mean = 0.8 + 0.875 * 2.3 + 0.7 * 2.3 + 0.525 * 3.8 + 0.2625 * 2.9;
        assert!((found.mean_days.unwrap() - mean).abs() < 1e-9, "{found:?}");
        assert_eq!((found.p50_days, found.p90_days, found.open), (Some(9.2), None, 4));
        assert_eq!(Recovery::of(&[]), Recovery::default());
    }
}
