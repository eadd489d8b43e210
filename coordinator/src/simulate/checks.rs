//! What a simulation must show, and whether it does.

use super::bench::{Bench, Comparison, GuaranteeBench};
use crate::experiment::Guarantee;
use serde::{Deserialize, Serialize};

/// Container time of a first sweep, over fixed N that misses as many flaky tests.
const FIRST: f64 = 0.7;
/// The same with history.
const SETTLED: f64 = 0.1;

/// One claim, held against what was simulated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What is claimed.
    pub claim: String,
    /// What it takes.
    pub wanted: String,
    /// What was found.
    pub found: String,
    /// Whether it holds.
    pub held: Held,
}

/// Whether a claim holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// It does.
    Yes,
    /// It does not.
    No,
}

impl From<bool> for Held {
    fn from(holds: bool) -> Self {
        if holds { Held::Yes } else { Held::No }
    }
}

/// Every claim.
pub fn checks(bench: &Bench) -> Vec<Check> {
    bench.guarantees.iter().flat_map(|found| of_guarantee(bench, found)).collect()
}

fn of_guarantee(bench: &Bench, found: &GuaranteeBench) -> Vec<Check> {
    let name = match found.guarantee {
        Guarantee::PerTest => "guarantee of each test",
        Guarantee::PerSuite => "guarantee of the suite",
    };
    let mut checks = Vec::new();
    let mut check = |claim: &str, wanted: String, told: String, holds: bool| {
        let claim = format!("{name}: {claim}");
        checks.push(Check { claim, wanted, found: told, held: holds.into() });
    };
    let confidence = bench.settings.confidence.get();
    let rows = found.calibration.coverage.iter().filter(|row| row.intervals > 0);
    let share = |cover: u64, intervals: u64| cover as f64 / intervals as f64;
    if let Some(least) = rows.min_by(|a, b| {
        share(a.cover, a.intervals).total_cmp(&share(b.cover, b.intervals)).then(a.rate.total_cmp(&b.rate))
    }) {
        let covered = share(least.cover, least.intervals);
        let told = format!("{} at rate {}", percent(covered), least.rate);
        check(
            "intervals cover the true rate, worst rate",
            format!("≥ {}", percent(confidence)),
            told,
            covered >= confidence,
        );
    }
    let accused = |comparison: &Comparison| comparison.measured.false_accusations;
    check("false accusations", "0".into(), accused(&found.first).to_string(), accused(&found.first) == 0);
    let noise = percent(bench.settings.infrastructure_errors);
    check(
        &format!("false accusations, {noise} infrastructure errors"),
        "0".into(),
        accused(&found.noisy).to_string(),
        accused(&found.noisy) == 0,
    );
    let rate = percent(bench.settings.max_flake_rate.get());
    for (comparison, under) in [(&found.first, String::new()), (&found.noisy, format!(", {noise} errors"))] {
        let share = comparison.measured.at_or_above.share();
        check(
            &format!("found of those that flake at {rate} or above{under}"),
            format!("≥ {}", percent(confidence)),
            percent(share),
            share >= confidence,
        );
    }
    // With the guarantee of each test every test gets its runs, whatever it costs: there the promise
    // is never to cost more.
    let first = found.first.cost_at_equal_recall;
    if found.guarantee == Guarantee::PerSuite {
        check(
            "first sweep, cost over fixed N at equal recall",
            format!("≤ {FIRST}"),
            three(first),
            first <= FIRST,
        );
    }
    let against = found.first.cost_against_guaranteed;
    check(
        &format!("first sweep, cost over fixed N = {}", bench.guaranteed_runs),
        "≤ 1".into(),
        three(against),
        against <= 1.0,
    );
    if let Some(settled) = &found.settled {
        check(
            &format!("after {} nights, cost over fixed N at equal recall", bench.settings.nights),
            format!("≤ {SETTLED}"),
            three(settled.cost_at_equal_recall),
            settled.cost_at_equal_recall <= SETTLED,
        );
        check(
            "after those nights, false accusations",
            "0".into(),
            accused(settled).to_string(),
            accused(settled) == 0,
        );
        let share = settled.measured.at_or_above.share();
        check(
            &format!("after those nights, found of those that flake at {rate} or above"),
            format!("≥ {}", percent(confidence)),
            percent(share),
            share >= confidence,
        );
    }
    checks
}

fn three(value: f64) -> String {
    format!("{value:.3}")
}

pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    // Down, not to the nearest: what falls short must not look as if it did not.
    let text = format!("{:.1}", (percent * 10.0 + 1e-6).floor() / 10.0);
    format!("{} %", text.strip_suffix(".0").unwrap_or(&text))
}
