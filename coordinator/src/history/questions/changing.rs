//! When a test changed, and between which revisions: [`crate::history::changes`] over its hours and days.

use super::days_of;
use crate::calendar::date_of;
use crate::db::{Db, DbError, PackSpan};
use crate::history::aggregate::{self, Aggregate};
use crate::history::changes::{self, Change, Tally};
use flakefarm_shared::samples::codec;
use flakefarm_shared::{TreatmentClass, UnixMicros};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const HOUR_MICROS: i64 = 3_600_000_000;

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Changed {
    /// How often the test fails.
    FailureRate,
    /// How long it takes.
    Duration,
}

/// A change of a test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeSeen {
    /// What changed.
    pub what: Changed,
    /// The date of the first runs after it, `2026-11-28`.
    pub date: String,
    /// When those began, to the hour where hours are known, else to the day; microseconds since the epoch.
    pub at: UnixMicros,
    /// Failures per run, or milliseconds, before it, back to the change before that.
    pub before: f64,
    /// The same from it on, up to the next change.
    pub after: f64,
    /// The chance of such a difference without a change, all places that were looked at counted in.
    pub chance: f64,
    /// The last revision that ran before it, where runs say theirs: it came in after this one, ...
    pub after_revision: Option<String>,
    /// ... and with this one at the latest, the first that ran from it on.
    pub by_revision: Option<String>,
}

/// Sums of one test and class by hour, in the order of time: hours where they are kept, days before that.
pub(super) type Moments = BTreeMap<UnixMicros, Aggregate>;

/// The hours of one test and its earlier names from one day to another, and of days without hours the sums;
/// by class.
pub(super) async fn moments(
    db: &Db,
    numbers: &[i64],
    (from, to): (i64, i64),
    days: &BTreeMap<(TreatmentClass, i64), Aggregate>,
) -> Result<BTreeMap<TreatmentClass, Moments>, DbError> {
    let mut hours: BTreeMap<(TreatmentClass, i64), BTreeMap<u8, Aggregate>> = BTreeMap::new();
    for number in numbers {
        for pack in db.packs_of_test(*number, PackSpan::Hours, from, to).await? {
            let of_day = hours.entry((pack.class, pack.start)).or_default();
            for (hour, sum) in aggregate::unpack(&pack.packed).unwrap_or_default() {
                of_day.entry(hour).or_default().merge(&sum);
            }
        }
    }
    let mut classes: BTreeMap<TreatmentClass, Moments> = BTreeMap::new();
    for ((class, day), sum) in days {
        let moments = classes.entry(*class).or_default();
        let start = codec::day_start(*day);
        match hours.remove(&(*class, *day)) {
            // What the sample store knows beyond them is of the last minutes.
            Some(hours) => {
                let at = |hour: u8| start + i64::from(hour) * HOUR_MICROS;
                moments.extend(hours.into_iter().map(|(hour, sum)| (at(hour), sum)));
            }
            None => drop(moments.insert(start, sum.clone())),
        }
    }
    Ok(classes)
}

/// The changes of one test and class, oldest first.
pub(super) async fn changes(
    db: &Db,
    project: &str,
    class: TreatmentClass,
    moments: &Moments,
) -> Result<Vec<ChangeSeen>, DbError> {
    let ran: Vec<(UnixMicros, &Aggregate)> =
        moments.iter().filter(|(_, sum)| sum.runs() > 0).map(|(at, sum)| (*at, sum)).collect();
    let tallies: Vec<Tally> =
        ran.iter().map(|(_, sum)| Tally { runs: sum.runs(), failures: sum.failures }).collect();
    let mut found: Vec<(Changed, UnixMicros, Change)> = changes::of_rate(&tallies)
        .into_iter()
        .map(|change| (Changed::FailureRate, ran[change.place].0, change))
        .collect();
    found.extend(of_duration(&ran));
    found.sort_by_key(|(what, at, _)| (*at, *what));
    let mut seen = Vec::with_capacity(found.len());
    for (what, at, change) in found {
        let around = db.runs_around(project, class, at).await?;
        seen.push(ChangeSeen {
            what,
            date: date_of(codec::day_of(at)).to_string(),
            at,
            before: change.before,
            after: change.after,
            chance: change.chance,
            after_revision: around.before,
            by_revision: around.after,
        });
    }
    Ok(seen)
}

/// By the medians of days; then, around the day of a change, by the hour from which on runs are nearer to
/// what came after.
fn of_duration(ran: &[(UnixMicros, &Aggregate)]) -> Vec<(Changed, UnixMicros, Change)> {
    let mut days: BTreeMap<i64, Aggregate> = BTreeMap::new();
    for (at, sum) in ran {
        days.entry(codec::day_of(*at)).or_default().merge(sum);
    }
    let medians: Vec<(i64, f64)> =
        days.iter().filter_map(|(day, sum)| Some((*day, sum.quantile_us(0.5)? / 1e3))).collect();
    let values: Vec<f64> = medians.iter().map(|(_, median)| *median).collect();
    let of_change = |change: Change| {
        let day = medians[change.place].0;
        let day_before = change.place.checked_sub(1).map_or(day, |place| medians[place].0);
        let middle = (change.before.ln() + change.after.ln()) / 2.0;
        let is_new = |sum: &Aggregate| {
            let median = sum.quantile_us(0.5).map(|us| (us / 1e3).ln());
            median.map(|median| (median > middle) == (change.after > change.before))
        };
        // The hours of both days, newest first, as long as they are like what came after.
        let hours = ran.iter().rev().filter(|(at, _)| {
            let day_of_hour = codec::day_of(*at);
            day_of_hour == day || day_of_hour == day_before
        });
        let news = hours.skip_while(|(at, sum)| codec::day_of(*at) == day && is_new(sum) == Some(false));
        let first = news.take_while(|(_, sum)| is_new(sum) != Some(false)).last();
        (Changed::Duration, first.map_or(codec::day_start(day), |(at, _)| *at), change)
    };
    changes::of_duration(&values).into_iter().map(of_change).collect()
}

/// The sums of one test and its earlier names by class and day, all that is kept up to `to`.
pub(super) async fn all_days(
    db: &Db,
    numbers: &[i64],
    to: i64,
) -> Result<BTreeMap<(TreatmentClass, i64), Aggregate>, DbError> {
    let mut days: BTreeMap<(TreatmentClass, i64), Aggregate> = BTreeMap::new();
    for number in numbers {
        for pack in db.packs_of_test(*number, PackSpan::Days, 0, to).await? {
            for (day, sum) in days_of(&pack) {
                days.entry((pack.class, day)).or_default().merge(&sum);
            }
        }
    }
    Ok(days)
}
