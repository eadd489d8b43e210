//! What the observations prove: intervals, durations, verdicts, scores. Pure functions of the
//! question and the ledger; formulas and sources are in `docs/statistics.md`.

pub mod category;
pub mod clusters;
pub mod compare;
#[cfg(test)]
pub(crate) mod documented;
pub mod durations;
mod elsewhere;
pub mod interval;
mod level;
pub mod prior;
pub mod ranking;
mod reasons;
mod shared;
pub mod verdict;
pub mod workers;

pub use crate::experiment::{Counts, Verdict};
pub use category::{Category, Finding};
pub use compare::{Comparison, Decision, Difference, Direction};
pub use durations::DurationSummary;
pub use interval::RateEstimate;
pub use level::qualify;
pub use prior::FailureRates;
pub use ranking::SignatureCount;
pub use shared::judge_shared;
pub use verdict::{Assessment, assess};

/// What a test that passed and failed depends on, as far as plain runs show it.
pub(crate) fn category_of(
    ledger: &crate::experiment::Ledger,
    test: &flakefarm_shared::TestId,
) -> Option<Category> {
    category::categorise(ledger, test).map(|finding| finding.category)
}

/// Fisher's exact test, one-sided towards the difference that was seen: the chance that two counts, each
/// (failures, attempts), at least this far apart come from one rate.
pub(crate) fn chance_of_difference(one: (u32, u32), other: (u32, u32)) -> f64 {
    let count = |(failures, attempts)| category::Count { attempts, failures };
    category::chance_of_difference(count(one), count(other))
}
