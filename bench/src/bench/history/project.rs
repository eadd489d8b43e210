//! A project with years of evidence, made rather than run: sums of days and hours as the collector writes
//! them, runs, failures and flips; a day's points one by one.

use super::{HistorySize, first_day};
use crate::Unmeasured;
use flakefarm_coordinator::calendar::month_of;
use flakefarm_coordinator::db::{DayRow, Db, FailureRow, PackRow, PackSpan, ProjectDayRow, RunRow, SeenTest};
use flakefarm_coordinator::history::aggregate::{self, Aggregate};
use flakefarm_coordinator::history::columns::{self, TestDay};
use flakefarm_shared::samples::{Chunk, Point, PointOutcome, Samples, StoredPoint, codec};
use flakefarm_shared::{JobId, RunOrigin, TestId, TreatmentClass, UnixMicros};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Its name.
pub(super) const NAME: &str = "bench-history";
/// One in so many tests is flaky, and fails in one of so many runs.
const FLAKY: u32 = 28;
const FAILS: u64 = 20;
/// Tests whose points of the last days are recorded: those that are asked for.
const ASKED: u32 = 60;
/// Different days that are dealt out to tests and dates.
const KINDS: u64 = 512;
const HOUR: UnixMicros = 3_600_000_000;

pub(super) struct Project {
    size: HistorySize,
    now: UnixMicros,
    /// Days of a healthy and of a flaky test.
    healthy: Vec<Day>,
    flaky: Vec<Day>,
}

/// A day of a test, summed up.
struct Day {
    /// Its hours, packed.
    hours: Vec<u8>,
    sum: Aggregate,
}

impl Project {
    pub(super) fn new(size: HistorySize, now: UnixMicros) -> Self {
        let of = |flaky: bool| {
            (0..KINDS)
                .map(|kind| {
                    let points: Vec<StoredPoint> =
                        (0..size.runs_a_day).map(|run| stored(point(0, kind, run, flaky))).collect();
                    let hours = aggregate::hours(&points);
                    Day { hours: aggregate::pack(&hours), sum: aggregate::sum(hours.values()) }
                })
                .collect()
        };
        Self { size, now, healthy: of(false), flaky: of(true) }
    }

    /// The day whose points are there.
    pub(super) fn night(&self) -> i64 {
        codec::day_of(self.now) - 1
    }

    /// The tests that questions are asked of: half of them flaky.
    pub(super) fn asked(&self) -> Vec<TestId> {
        let step = FLAKY / 2;
        (0..ASKED).map(|place| name((place * step) % self.size.tests)).collect()
    }

    fn day(&self, test: u32, day: i64) -> &Day {
        let kind = (u64::from(test).wrapping_mul(31) + day.unsigned_abs().wrapping_mul(17)) % KINDS;
        let kinds = if is_flaky(test) { &self.flaky } else { &self.healthy };
        &kinds[kind as usize]
    }

    /// Records sums, runs, failures and flips.
    pub(super) async fn record(&self, db: &Db) -> Result<(), Unmeasured> {
        let (first, night) = (first_day(self.now, self.size.days), self.night());
        let numbers = self.note_tests(db, first, codec::day_of(self.now)).await?;
        for day in first..=night {
            self.record_sums_of(db, &numbers, day).await?;
            self.record_runs_of(db, &numbers, day).await?;
        }
        let mut months: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for day in first..=night {
            months.entry(month_of(day).0).or_default().push(day);
        }
        for (month, days) in months {
            self.record_month(db, &numbers, month, &days).await?;
        }
        Ok(())
    }

    /// Tests that were there from one day to another; gives their numbers.
    pub(super) async fn note_tests(&self, db: &Db, first: i64, last: i64) -> Result<Vec<i64>, Unmeasured> {
        let names: Vec<TestId> = (0..self.size.tests).map(name).collect();
        for names in names.chunks(1_000) {
            let seen: Vec<SeenTest> =
                names.iter().map(|test| SeenTest { test: test.clone(), parts: None }).collect();
            for day in [first, last] {
                db.note_tests(NAME, &seen, codec::day_start(day)).await?;
            }
        }
        let known = db.test_numbers(NAME, &names).await?;
        Ok(names.iter().filter_map(|test| known.get(test).copied()).collect())
    }

    pub(super) async fn record_sums_of(&self, db: &Db, numbers: &[i64], day: i64) -> Result<(), Unmeasured> {
        let mut columns = Vec::with_capacity(numbers.len());
        let mut rows = Vec::with_capacity(1_000);
        for (test, number) in (0..).zip(numbers) {
            let summed = self.day(test, day);
            columns.push(TestDay::of(*number, &summed.sum));
            rows.push(PackRow {
                test: *number,
                class: TreatmentClass::Ci,
                start: day,
                points: u64::from(self.size.runs_a_day),
                packed: summed.hours.clone(),
            });
            if rows.len() == 1_000 {
                db.put_packs(PackSpan::Hours, &rows).await?;
                rows.clear();
            }
        }
        db.put_packs(PackSpan::Hours, &rows).await?;
        let row = ProjectDayRow { class: TreatmentClass::Ci, day, packed: columns::pack(&columns) };
        db.put_project_day(NAME, &row, self.now).await?;
        let points = u64::from(self.size.tests) * u64::from(self.size.runs_a_day);
        db.note_day(NAME, &DayRow { day, points, at: self.now, gap: None }).await?;
        Ok(())
    }

    /// The days of a month, of which some are given.
    pub(super) async fn record_month(
        &self,
        db: &Db,
        numbers: &[i64],
        month: i64,
        days: &[i64],
    ) -> Result<(), Unmeasured> {
        for (chunk, numbers) in (0..).zip(numbers.chunks(1_000)) {
            let rows: Vec<PackRow> = (chunk * 1_000..)
                .zip(numbers)
                .map(|(test, number)| {
                    let sums: BTreeMap<u8, Aggregate> =
                        days.iter().map(|day| (month_of(*day).1, self.day(test, *day).sum.clone())).collect();
                    PackRow {
                        test: *number,
                        class: TreatmentClass::Ci,
                        start: month,
                        points: days.len() as u64 * u64::from(self.size.runs_a_day),
                        packed: aggregate::pack(&sums),
                    }
                })
                .collect();
            db.put_packs(PackSpan::Days, &rows).await?;
        }
        Ok(())
    }

    /// The day's runs, what failed in them, and what flipped on their revisions.
    pub(super) async fn record_runs_of(&self, db: &Db, numbers: &[i64], day: i64) -> Result<(), Unmeasured> {
        for number in 0..self.size.runs_a_day {
            let at = codec::day_start(day) + i64::from(number) * HOUR;
            let run = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{NAME} {day} {number}").as_bytes());
            let revision = format!("r{day}x{}", number / 2);
            db.record_run(&RunRow {
                id: run,
                project: NAME.to_owned(),
                origin: RunOrigin::Ci,
                class: TreatmentClass::Ci,
                level: None,
                revision: Some(revision.clone()),
                branch: Some("main".to_owned()),
                environment: None,
                variant: Some(String::new()),
                ci: None,
                attempt: Some(1 + number % 2),
                started_at: at,
                finished_at: Some(at + HOUR / 2),
            })
            .await?;
            let failing = |(test, _): &(u32, &i64)| {
                is_flaky(*test) && mixed(u64::from(*test), day.unsigned_abs(), number).is_multiple_of(FAILS)
            };
            let failed: Vec<FailureRow> = (0..)
                .zip(numbers)
                .filter(failing)
                .map(|(test, number)| FailureRow {
                    test: *number,
                    batch: run,
                    signature: u64::from(test % 3),
                    count: 1,
                    at,
                    message: "AssertionError: assert 4 == 5".to_owned(),
                    class: None,
                    broke: Some(true),
                })
                .collect();
            db.record_failures(run, &failed).await?;
            let flipped: Vec<i64> = failed.iter().map(|row| row.test).collect();
            db.record_flips(run, &revision, "", Some("main"), &flipped, at).await?;
        }
        Ok(())
    }

    /// Points of the last two weeks, of the tests that are asked for.
    pub(super) async fn record_points(&self, samples: &Samples) -> Result<(), Unmeasured> {
        for day in self.night() - 13..self.night() {
            self.record_points_of(samples, day).await?;
        }
        Ok(())
    }

    /// Points of one day, of the tests that are asked for.
    pub(super) async fn record_points_of(&self, samples: &Samples, day: i64) -> Result<(), Unmeasured> {
        for run in 0..self.size.runs_a_day {
            let chunks: Vec<Chunk> = (0..)
                .zip(self.asked())
                .map(|(place, test)| chunk(&test, day, run, point(day, place, run, place % 2 == 0)))
                .collect();
            samples.append(&chunks).await?;
        }
        Ok(())
    }

    /// All points of one day, each in a chunk of its own, as single runs record them.
    pub(super) async fn record_day(&self, samples: &Samples) -> Result<u64, Unmeasured> {
        let day = self.night();
        let mut recorded = 0;
        for run in 0..self.size.runs_a_day {
            let mut chunks = Vec::with_capacity(1_000);
            for test in 0..self.size.tests {
                chunks.push(chunk(&name(test), day, run, point(day, u64::from(test), run, is_flaky(test))));
                if chunks.len() == 1_000 || test + 1 == self.size.tests {
                    recorded += chunks.len() as u64;
                    samples.append(&chunks).await?;
                    chunks.clear();
                }
            }
        }
        Ok(recorded)
    }
}

fn is_flaky(test: u32) -> bool {
    test.is_multiple_of(FLAKY)
}

fn name(test: u32) -> TestId {
    TestId(format!("tests/unit/test_module_{}.py::TestThings::test_case_{test}", test / 50))
}

/// Numbers that look like chance, the same each time.
fn mixed(test: u64, day: u64, run: u32) -> u64 {
    let mut number = test.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ day.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ u64::from(run)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

fn point(day: i64, test: u64, run: u32, flaky: bool) -> Point {
    let chance = mixed(test, day.unsigned_abs(), run);
    let at = codec::day_start(day) + i64::from(run) * HOUR + (chance % 1_000_000).cast_signed();
    let wall = 20_000 + (chance >> 20) % 60_000;
    let failed = flaky && chance.is_multiple_of(FAILS);
    let outcome = if failed { PointOutcome::Fail } else { PointOutcome::Pass };
    Point {
        outcome,
        signature: failed.then_some(test % 3),
        ..Point::passed(at, u32::try_from(wall).unwrap_or(u32::MAX))
    }
}

fn stored(point: Point) -> StoredPoint {
    StoredPoint { point, run: None, class: TreatmentClass::Ci }
}

fn chunk(test: &TestId, day: i64, run: u32, point: Point) -> Chunk {
    let name = |what: &str| Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{what} {day} {run}").as_bytes());
    Chunk {
        project: NAME.to_owned(),
        test: test.clone(),
        run: name("run"),
        class: TreatmentClass::Ci,
        job: JobId(name("job")),
        chunk: 0,
        points: vec![point],
    }
}
