//! What history answers: one test over time, the tests of a project ranked, a project over time, and what is
//! new of it. Every answer names its schema and is the same for the command line and over HTTP.
//!
//! Points say what the last days were, sums what came before; where both know a day, the one that knows more
//! of it counts, so that a sample store that is away or was emptied costs nothing that was summed up.

mod changing;
mod costing;
mod foretelling;
mod names;
mod of_project;
mod of_test;
mod of_week;
mod sums;

pub use changing::{ChangeSeen, Changed};
pub use costing::CostSeen;
pub use foretelling::{Forecast, TestForecast, forecast};
pub use of_project::{ProjectDay, Ranking, TestRanked, Trends, ranking, trends};
pub use of_test::{
    BranchSeen, ClassSeen, DaySeen, FlipSeen, SignatureSeen, TestHistory, VerdictSeen, test_history,
};
pub use of_week::{ClusterSeen, TestMoved, Week, week};

use super::aggregate::{self, Aggregate};
use crate::calendar::date_of;
use crate::db::{Db, DbError, PackRow};
use crate::plan::Confidence;
use crate::score::interval::rate_interval;
use flakefarm_shared::samples::codec;
use flakefarm_shared::{TreatmentClass, UnixMicros};
use serde::{Deserialize, Serialize};

/// A window of days: from one (inclusive) to another (exclusive), counted from the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The first day.
    pub from: i64,
    /// The day after the last.
    pub to: i64,
}

impl Window {
    /// The last `days` days, today included.
    pub fn last(days: u16, now: UnixMicros) -> Self {
        let today = codec::day_of(now);
        Self { from: (today + 1 - i64::from(days.max(1))).max(0), to: today + 1 }
    }
}

/// A rate with the interval that it lies in.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RateSeen {
    /// Failures per run.
    pub estimate: f64,
    /// Lower end.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
    /// How sure the interval is.
    pub confidence: f64,
}

/// What some runs of one test and treatment class come to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Passes and failures.
    pub runs: u64,
    /// Failures.
    pub failures: u64,
    /// Skips.
    pub skips: u64,
    /// How often it fails; none without runs.
    pub rate: Option<RateSeen>,
    /// Durations in milliseconds: the median; none if no duration is known.
    pub p50_ms: Option<f64>,
    /// The 90th percentile.
    pub p90_ms: Option<f64>,
    /// The mean.
    pub mean_ms: Option<f64>,
}

impl Summary {
    fn of(sum: &Aggregate, confidence: Confidence) -> Self {
        let ms = |us: Option<f64>| us.map(|us| us / 1e3);
        Self {
            runs: sum.runs(),
            failures: sum.failures,
            skips: sum.skips,
            rate: RateSeen::of(sum.failures, sum.runs(), confidence),
            p50_ms: ms(sum.quantile_us(0.5)),
            p90_ms: ms(sum.quantile_us(0.9)),
            mean_ms: ms(sum.mean_us()),
        }
    }
}

impl RateSeen {
    /// Of some failures in runs; none without runs.
    pub(crate) fn of(failures: u64, runs: u64, confidence: Confidence) -> Option<Self> {
        if runs == 0 {
            return None;
        }
        let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let rate = rate_interval(count(failures), count(runs), confidence);
        Some(Self {
            estimate: rate.estimate,
            lower: rate.lower,
            upper: rate.upper,
            confidence: confidence.get(),
        })
    }
}

/// Classes whose runs ran the tests as they are: what says how a test fares.
pub(crate) const AS_IT_IS: [TreatmentClass; 3] =
    [TreatmentClass::Plain, TreatmentClass::Unisolated, TreatmentClass::Ci];

/// What was found missing of a project's days, in words.
async fn noted_gaps(db: &Db, project: &str, window: Window) -> Result<Vec<String>, DbError> {
    let notes = db.noted_days(project, window.from, window.to).await?;
    Ok(notes.into_iter().filter_map(|note| Some(format!("{}: {}", date_of(note.day), note.gap?))).collect())
}

/// The days of a pack of days.
fn days_of(pack: &PackRow) -> impl Iterator<Item = (i64, Aggregate)> {
    let start = pack.start;
    let sums = aggregate::unpack(&pack.packed).unwrap_or_default();
    sums.into_iter().map(move |(place, sum)| (start + i64::from(place) - 1, sum))
}
