//! From points to sums: a day of a project is read from the sample store and its sums are written to the
//! database, where they stay when the points have expired. A day is summed up anew each time, so that late
//! points count and doubled work changes nothing; what the sample store has lost since is kept as it was,
//! and noted as a gap.

use super::aggregate::{self, Aggregate};
use super::columns::{self, TestDay};
use super::excluded::Excluded;
use crate::calendar::month_of;
use crate::db::{DayRow, Db, DbError, PackRow, PackSpan, ProjectDayRow, TestRow};
use flakefarm_shared::samples::{SampleError, SampleStore, StoredPoint, codec};
use flakefarm_shared::{TestId, TreatmentClass, UnixMicros};
use std::collections::{BTreeMap, HashMap};

/// Tests summed up together, at most.
const BATCH: usize = 500;
/// Before it is known how many points the tests of a project have in a day.
const FIRST_BATCH: usize = 20;
/// Points that are in memory together, as far as the tests before let foresee.
const POINTS_TOGETHER: usize = 50_000;
/// A test that was last seen so long before a day is not asked for.
const UNSEEN_MICROS: UnixMicros = 3 * 86_400_000_000;

/// A day could not be summed up; doing it again is safe.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The database.
    #[error("the database failed")]
    Db(#[from] DbError),
    /// The sample store.
    #[error("the sample store failed")]
    Samples(#[from] SampleError),
}

/// Sums up one day of a project. `day` is counted from the epoch.
pub async fn collect_day(
    db: &Db,
    samples: &dyn SampleStore,
    project: &str,
    day: i64,
    now: UnixMicros,
) -> Result<DayRow, CollectError> {
    let start = codec::day_start(day);
    let tests: Vec<TestRow> = db
        .tests(project)
        .await?
        .into_iter()
        .filter(|test| test.last_seen >= start - UNSEEN_MICROS && test.first_seen < start + 2 * UNSEEN_MICROS)
        .collect();
    let excluded = Excluded::of(db, project, start - UNSEEN_MICROS).await?;
    let before = db.noted_days(project, day, day + 1).await?.pop();
    let mut points = 0u64;
    let mut lost = 0u64;
    let mut columns: Columns = BTreeMap::new();
    let (mut left, mut batch) = (tests.as_slice(), FIRST_BATCH);
    while !left.is_empty() {
        let (some, rest) = left.split_at(batch.min(left.len()));
        left = rest;
        let names: Vec<TestId> = some.iter().map(|test| test.test.clone()).collect();
        let found = samples.points_of_day(project, &names, day).await?;
        points += found.iter().map(|points| points.len() as u64).sum::<u64>();
        batch = tests_together(found.iter().map(Vec::len).max().unwrap_or(0));
        lost += write(db, some, &found, day, &excluded, &mut columns).await?;
    }
    put_columns(db, project, day, columns, now).await?;
    let before_points = before.as_ref().map_or(0, |note| note.points);
    let gap = if lost > 0 || points < before_points {
        Some(format!(
            "{} samples are gone from the sample store; their sums are kept",
            lost.max(before_points.saturating_sub(points))
        ))
    } else {
        None
    };
    let note = DayRow { day, points: points.max(before_points), at: now, gap };
    db.note_day(project, &note).await?;
    Ok(note)
}

/// How many tests are summed up together that have at most so many points each.
fn tests_together(points: usize) -> usize {
    (POINTS_TOGETHER / points.max(1)).clamp(1, BATCH)
}

/// A day's tests by class.
type Columns = BTreeMap<TreatmentClass, Vec<TestDay>>;

async fn put_columns(
    db: &Db,
    project: &str,
    day: i64,
    columns: Columns,
    now: UnixMicros,
) -> Result<(), DbError> {
    for (class, tests) in columns {
        let row = ProjectDayRow { class, day, packed: columns::pack(&tests) };
        db.put_project_day(project, &row, now).await?;
    }
    Ok(())
}

/// Makes the columns of days that an earlier program summed up without them, from their sums.
pub async fn mend_columns(db: &Db, project: &str, now: UnixMicros) -> Result<(), DbError> {
    let mut months: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for day in db.days_without_columns(project).await? {
        months.entry(month_of(day).0).or_default().push(day);
    }
    if months.is_empty() {
        return Ok(());
    }
    let numbers: Vec<i64> = db.tests(project).await?.iter().map(|test| test.number).collect();
    for (month, days) in months {
        let mut found: BTreeMap<i64, Columns> = BTreeMap::new();
        for numbers in numbers.chunks(BATCH) {
            for pack in db.packs_of(numbers, PackSpan::Days, month).await? {
                for (place, sum) in aggregate::unpack(&pack.packed).unwrap_or_default() {
                    let columns = found.entry(month + i64::from(place) - 1).or_default();
                    columns.entry(pack.class).or_default().push(TestDay::of(pack.test, &sum));
                }
            }
        }
        for day in days {
            put_columns(db, project, day, found.remove(&day).unwrap_or_default(), now).await?;
        }
    }
    Ok(())
}

/// Writes the sums of some tests' points of a day; gives how many points are gone that were summed up.
async fn write(
    db: &Db,
    tests: &[TestRow],
    found: &[Vec<StoredPoint>],
    day: i64,
    excluded: &Excluded,
    columns: &mut Columns,
) -> Result<u64, DbError> {
    let numbers: Vec<i64> = tests.iter().map(|test| test.number).collect();
    let mut kept_hours: HashMap<(i64, TreatmentClass), PackRow> = db
        .packs_of(&numbers, PackSpan::Hours, day)
        .await?
        .into_iter()
        .map(|pack| ((pack.test, pack.class), pack))
        .collect();
    let (month, place) = month_of(day);
    let mut months: HashMap<(i64, TreatmentClass), PackRow> = db
        .packs_of(&numbers, PackSpan::Days, month)
        .await?
        .into_iter()
        .map(|pack| ((pack.test, pack.class), pack))
        .collect();
    let mut lost: HashMap<(i64, TreatmentClass), u64> =
        kept_hours.iter().map(|(key, pack)| (*key, pack.points)).collect();
    let (mut hours, mut days) = (Vec::new(), Vec::new());
    for (test, points) in numbers.iter().zip(found) {
        for (class, points) in by_class(points) {
            let key = (*test, class);
            let count = points.len() as u64;
            let kept = kept_hours.get(&key).map_or(0, |pack| pack.points);
            lost.insert(key, kept.saturating_sub(count));
            if count < kept {
                continue;
            }
            // Counted, so that nothing seems to be gone; but of no weight.
            let sums = aggregate::hours(points.iter().copied().filter(|stored| excluded.counts(stored)));
            let total = aggregate::sum(sums.values());
            columns.entry(class).or_default().push(TestDay::of(*test, &total));
            kept_hours.remove(&key);
            let packed = aggregate::pack(&sums);
            hours.push(PackRow { test: *test, class, start: day, points: count, packed });
            let month = months.entry(key).or_insert_with(|| PackRow {
                test: *test,
                class,
                start: month,
                points: 0,
                packed: aggregate::pack(&BTreeMap::new()),
            });
            let mut sums = aggregate::unpack(&month.packed).unwrap_or_default();
            sums.insert(place, total);
            month.points = sums.values().map(|sum: &Aggregate| sum.runs() + sum.skips).sum();
            month.packed = aggregate::pack(&sums);
            days.push(month.clone());
        }
    }
    for ((test, class), pack) in kept_hours {
        let total = aggregate::sum(aggregate::unpack(&pack.packed).unwrap_or_default().values());
        columns.entry(class).or_default().push(TestDay::of(test, &total));
    }
    db.put_packs(PackSpan::Hours, &hours).await?;
    db.put_packs(PackSpan::Days, &days).await?;
    Ok(lost.values().sum())
}

fn by_class(points: &[StoredPoint]) -> BTreeMap<TreatmentClass, Vec<&StoredPoint>> {
    let mut classes: BTreeMap<TreatmentClass, Vec<&StoredPoint>> = BTreeMap::new();
    for stored in points {
        classes.entry(stored.class).or_default().push(stored);
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_with_many_points_are_summed_up_a_few_at_a_time() {
        assert_eq!([0, 3, 2_000, 60_000].map(tests_together), [BATCH, BATCH, 25, 1]);
    }
}
