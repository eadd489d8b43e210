//! What is new of a project: tests that moved this week, tests that fail together, how long they stay red.

use super::names::Names;
use super::sums::Days;
use super::{AS_IT_IS, Window};
use crate::db::{Db, DbError, PackSpan};
use crate::history::aggregate::{self, Aggregate};
use crate::history::moves::{self, BEFORE, Move, RunsSeen, WEEK};
use crate::history::recovery::{self, Case, DayCount, End, Lasted, Recovery};
use crate::history::together;
use flakefarm_shared::samples::codec;
use flakefarm_shared::{TreatmentClass, UnixMicros};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uuid::Uuid;

/// Tests of each kind that are shown; more are counted.
const SHOWN_MOVES: usize = 100;
/// Clusters that are shown.
const SHOWN_CLUSTERS: usize = 50;

/// A test that moved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestMoved {
    /// The test.
    pub test: String,
    /// What the runs are evidence of.
    pub class: String,
    /// What became of it.
    pub moved: Move,
    /// The 28 days before.
    pub before: RunsSeen,
    /// The last seven days.
    pub now: RunsSeen,
}

/// What is new of a project this week.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Week {
    /// The week.
    pub window: Option<Window>,
    /// Tests that became flaky.
    pub new: u64,
    /// Tests that fail more often.
    pub worse: u64,
    /// Tests that fail less often.
    pub better: u64,
    /// Tests that do not fail any more.
    pub gone: u64,
    /// The first hundred of each, those with the most failures first.
    pub tests: Vec<TestMoved>,
}

/// Tests that fail together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterSeen {
    /// What the occasions are evidence of: in CI an occasion is a run, of sweeps an attempt on many tests.
    pub class: String,
    /// The tests.
    pub tests: Vec<String>,
    /// Occasions on which all of them failed.
    pub all_failed: u32,
    /// Occasions on which any of them failed.
    pub any_failed: u32,
}

/// The week that ends before a day, and what it is compared with.
pub(super) fn windows(to: i64) -> (Window, Window) {
    let week = Window { from: to - WEEK, to };
    (week, Window { from: week.from - BEFORE, to: week.from })
}

/// What is new of a project in the seven days that end with the day of `now`.
pub async fn week(db: &Db, project: &str, now: UnixMicros) -> Result<Week, DbError> {
    let to = codec::day_of(now) + 1;
    let (_, before) = windows(to);
    let rows = db.project_days(project, before.from, to).await?;
    let names = Names::read(db, project).await?;
    of_days(db, &Days::open(&rows, &names), to).await
}

pub(super) async fn of_days(db: &Db, days: &Days<'_>, to: i64) -> Result<Week, DbError> {
    let (week, before) = windows(to);
    let mut moved: Vec<(Move, i64, TreatmentClass, RunsSeen, RunsSeen)> = Vec::new();
    for (class, sums) in days.sums([before, week]).iter().filter(|(class, _)| AS_IT_IS.contains(class)) {
        let of_test = |(test, [before, now]): (i64, &[RunsSeen; 2])| {
            Some((moves::of(*before, *now)?, test, *class, *before, *now))
        };
        moved.extend(sums.iter().filter_map(of_test));
    }
    moved.sort_by_key(|(moved, test, class, before, now)| {
        (*moved, std::cmp::Reverse(before.failures.max(now.failures)), *test, *class)
    });
    let count = |wanted: Move| moved.iter().filter(|(moved, ..)| *moved == wanted).count();
    let [new, worse, better, gone] = Move::ALL.map(|wanted| count(wanted) as u64);
    let shown: Vec<_> = Move::ALL
        .iter()
        .flat_map(|wanted| moved.iter().filter(move |(moved, ..)| moved == wanted).take(SHOWN_MOVES))
        .collect();
    let numbers: Vec<i64> =
        shown.iter().map(|(_, test, ..)| *test).collect::<BTreeSet<i64>>().into_iter().collect();
    let names = db.names_of(&numbers).await?;
    let test_moved =
        |(moved, test, class, before, now): &&(Move, i64, TreatmentClass, RunsSeen, RunsSeen)| {
            Some(TestMoved {
                test: names.get(test)?.to_string(),
                class: class.word().to_owned(),
                moved: *moved,
                before: *before,
                now: *now,
            })
        };
    Ok(Week {
        window: Some(week),
        new,
        worse,
        better,
        gone,
        tests: shown.iter().filter_map(test_moved).collect(),
    })
}

/// Tests of a project that fail together in a window, by class.
pub(super) async fn clusters(
    db: &Db,
    project: &str,
    window: Window,
    names: &Names,
) -> Result<Vec<ClusterSeen>, DbError> {
    let mut found = Vec::new();
    for class in AS_IT_IS {
        let rows = db.failed_on(project, class, window.start(), window.end()).await?;
        if rows.is_empty() {
            continue;
        }
        let occasions = db.occasions(project, class, window.start(), window.end()).await?;
        // A report is recorded in batches that say nothing of what ran together.
        let mut numbers: HashMap<(Uuid, Option<Uuid>), u32> = HashMap::new();
        let mut failed = Vec::with_capacity(rows.len());
        for row in rows {
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            let batch = (class != TreatmentClass::Ci).then_some(row.batch);
            failed.push((*numbers.entry((row.run, batch)).or_insert(next), names.now(row.test)));
        }
        let occasions = u32::try_from(occasions).unwrap_or(u32::MAX).max(numbers.len() as u32);
        let together = tokio::task::spawn_blocking(move || together::clusters(&failed, occasions));
        let mut together = together.await.unwrap_or_default();
        together.truncate(SHOWN_CLUSTERS);
        let tests: Vec<i64> = together.iter().flat_map(|cluster| cluster.tests.iter().copied()).collect();
        let ids = db.names_of(&tests).await?;
        found.extend(together.into_iter().map(|cluster| ClusterSeen {
            class: class.word().to_owned(),
            tests: cluster.tests.iter().filter_map(|test| Some(ids.get(test)?.to_string())).collect(),
            all_failed: cluster.all_failed,
            any_failed: cluster.any_failed,
        }));
    }
    Ok(found)
}

/// How long tests stay red, over cases that begin in a window.
pub(super) async fn recovery(db: &Db, days: &Days<'_>, window: Window) -> Result<Recovery, DbError> {
    let mut red: BTreeSet<(TreatmentClass, i64)> = BTreeSet::new();
    for (class, _, counts) in days.iter().filter(|(class, ..)| AS_IT_IS.contains(class)) {
        let failed = counts.into_iter().filter(|(_, _, failures)| *failures > 0);
        red.extend(failed.map(|(test, ..)| (class, test)));
    }
    let mut counts: BTreeMap<(TreatmentClass, i64), Vec<DayCount>> = BTreeMap::new();
    for (class, day, of_day) in days.iter().filter(|(class, ..)| AS_IT_IS.contains(class)) {
        for (test, runs, failures) in of_day {
            if red.contains(&(class, test)) {
                counts.entry((class, test)).or_default().push(DayCount { day, runs, failures });
            }
        }
    }
    let mut cases: Vec<(TreatmentClass, i64, Case)> = Vec::new();
    for ((class, test), days) in &counts {
        let of_test = recovery::cases(days, window.to - 1);
        cases.extend(
            of_test
                .into_iter()
                .filter(|case| case.first_red >= window.from)
                .map(|case| (*class, *test, case)),
        );
    }
    lasted(db, &cases, days.names()).await.map(|lasted| Recovery::of(&lasted))
}

/// How long cases lasted, to the hour where hours are known.
async fn lasted(
    db: &Db,
    cases: &[(TreatmentClass, i64, Case)],
    names: &Names,
) -> Result<Vec<Lasted>, DbError> {
    let mut wanted: BTreeMap<i64, BTreeSet<i64>> = BTreeMap::new();
    for (_, test, case) in cases {
        let end = match case.end {
            End::Green(day) | End::Open(day) => day,
        };
        for day in [case.first_red, case.last_red, end] {
            wanted.entry(day).or_default().insert(*test);
        }
    }
    let mut sums: HashMap<(TreatmentClass, i64, i64), BTreeMap<u8, Aggregate>> = HashMap::new();
    for (day, tests) in wanted {
        let tests: Vec<i64> = names.with_earlier(&tests.into_iter().collect::<Vec<_>>());
        for pack in db.packs_of(&tests, PackSpan::Hours, day).await? {
            let of_day = sums.entry((pack.class, names.now(pack.test), day)).or_default();
            for (hour, sum) in aggregate::unpack(&pack.packed).unwrap_or_default() {
                of_day.entry(hour).or_default().merge(&sum);
            }
        }
    }
    let hours: HashMap<(TreatmentClass, i64, i64), Hours> =
        sums.iter().map(|(key, sums)| (*key, Hours::of(sums))).collect();
    let of_case = |(class, test, case): &(TreatmentClass, i64, Case)| {
        let hours = |day: i64| hours.get(&(*class, *test, day));
        let at = |day: i64, hour: Option<u8>| day as f64 + f64::from(hour.unwrap_or(0)) / 24.0;
        let first = at(case.first_red, hours(case.first_red).and_then(|hours| hours.first_red));
        let after_last = hours(case.last_red).and_then(|hours| hours.green_after_red);
        let (end, over) = match case.end {
            End::Green(day) | End::Open(day) if after_last.is_some() && day != case.last_red => {
                (at(case.last_red, after_last), matches!(case.end, End::Green(_)))
            }
            End::Green(day) => (at(day, hours(day).and_then(|hours| hours.first)), true),
            End::Open(day) => (at(day, hours(day).and_then(|hours| hours.last)), false),
        };
        Lasted { days: (end - first).max(0.0), over }
    };
    Ok(cases.iter().map(of_case).collect())
}

/// The hours of a day that matter to a case.
#[derive(Debug, Clone, Copy, Default)]
struct Hours {
    first: Option<u8>,
    last: Option<u8>,
    first_red: Option<u8>,
    /// The first hour after the last failure in which the test ran.
    green_after_red: Option<u8>,
}

impl Hours {
    fn of(sums: &BTreeMap<u8, Aggregate>) -> Self {
        let mut hours = Hours::default();
        for (hour, sum) in sums.iter().filter(|(_, sum)| sum.runs() > 0) {
            let hour = *hour;
            hours.first = hours.first.or(Some(hour));
            hours.last = Some(hour);
            if sum.failures > 0 {
                hours.first_red = hours.first_red.or(Some(hour));
                hours.green_after_red = None;
            } else if hours.first_red.is_some() {
                hours.green_after_red = hours.green_after_red.or(Some(hour));
            }
        }
        hours
    }
}
