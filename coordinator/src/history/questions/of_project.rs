//! The tests of a project ranked, and a project over time.

use super::costing::{CostSeen, minutes};
use super::names::Names;
use super::of_week::{self, Week};
use super::sums::{ClassSums, Days, Took};
use super::{AS_IT_IS, RateSeen, Window, noted_gaps};
use crate::calendar::date_of;
use crate::db::{BranchFlips, CiCost, Db, DbError, RunsOfClass};
use crate::history::moves::{self, Move, RunsSeen};
use crate::history::recovery::Recovery;
use crate::plan::Confidence;
use flakefarm_shared::{TestId, TreatmentClass, UnixMicros};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};

/// One test of a ranking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestRanked {
    /// The test.
    pub test: String,
    /// When it was first seen, in microseconds since the epoch.
    pub first_seen: UnixMicros,
    /// When it was last seen.
    pub last_seen: UnixMicros,
    /// By treatment class.
    pub classes: Vec<ClassRanked>,
    /// Revisions and variants on which CI saw it pass and fail.
    pub flips: u64,
    /// What became of it this week, if anything.
    pub moved: Option<Move>,
    /// What it has cost, if it is flaky.
    pub cost: Option<CostSeen>,
}

/// One test of a ranking in one treatment class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassRanked {
    /// What the runs are evidence of.
    pub class: String,
    /// Passes and failures.
    pub runs: u64,
    /// Failures.
    pub failures: u64,
    /// How often it fails; none without runs.
    pub rate: Option<RateSeen>,
    /// The median of its days' median durations, weighted by runs, in milliseconds.
    pub p50_ms: Option<f64>,
}

/// The tests of a project, ranked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ranking {
    /// `flakefarm.tests/v1`.
    pub schema: String,
    /// The project.
    pub project: String,
    /// The window.
    pub window: Window,
    /// Tests that the ranking is of: all that anybody ever saw, or those with the move that was asked for.
    pub total: u64,
    /// The project's runs that it rests on.
    pub runs: Vec<RunsOfClass>,
    /// The first of them.
    pub tests: Vec<TestRanked>,
    /// What is missing, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<String>,
}

/// The tests of a project, those first that CI saw flip, then those that both passed and failed as they are,
/// then by failures; equals by when they were first seen. With `moved` only those.
pub async fn ranking(
    db: &Db,
    project: &str,
    window: Window,
    moved: Option<Move>,
    limit: usize,
) -> Result<Ranking, DbError> {
    let (week, before) = of_week::windows(window.to);
    // On the heap: together they are large.
    let (rows, flips, names, seen, runs, gaps) = Box::pin(async {
        tokio::try_join!(
            db.project_days(project, window.from.min(before.from), window.to),
            db.flips_by_test(project, window.start(), window.end()),
            Names::read(db, project),
            db.count_tests(project),
            db.runs_by_class(project, window.start(), window.end()),
            noted_gaps(db, project, window),
        )
    })
    .await?;
    let days = Days::open(&rows, &names);
    let sums = days.sums([window, before, week]);
    let mut weights: BTreeMap<i64, Weight> = BTreeMap::new();
    for (class, of_class) in &sums {
        let as_it_is = AS_IT_IS.contains(class);
        for (test, [sum, before, week]) in of_class.iter() {
            let weight = weights.entry(test).or_default();
            if as_it_is {
                weight.both |= sum.failures > 0 && sum.failures < sum.runs;
                weight.failures += sum.failures;
                weight.moved = weight.moved.or_else(|| moves::of(*before, *week));
            }
        }
    }
    for (test, flips) in &flips {
        weights.entry(names.now(*test)).or_default().flips += *flips;
    }
    let mut order: Vec<(i64, Weight)> = weights.into_iter().collect();
    if let Some(wanted) = moved {
        order.retain(|(_, weight)| weight.moved == Some(wanted));
    }
    order.sort_by(|(a, one), (b, other)| other.key().cmp(&one.key()).then(a.cmp(b)));
    let total = match moved {
        Some(_) => order.len() as u64,
        // All that anybody ever saw, each under one name.
        None => seen.saturating_sub(names.len() as u64),
    };
    if moved.is_none() && order.len() < limit {
        add_others(db, project, limit, &names, &mut order).await?;
    }
    order.truncate(limit);
    let tests = shown(db, window, &order, &days, &sums).await?;
    Ok(Ranking {
        schema: "flakefarm.tests/v1".to_owned(),
        project: project.to_owned(),
        window,
        total,
        runs,
        tests,
        gaps,
    })
}

#[derive(Debug, Clone, Copy, Default)]
struct Weight {
    flips: u64,
    both: bool,
    failures: u64,
    moved: Option<Move>,
}

impl Weight {
    fn key(&self) -> (u64, bool, u64) {
        (self.flips, self.both, self.failures)
    }
}

/// Adds tests that did not run in the window, up to a limit.
async fn add_others(
    db: &Db,
    project: &str,
    limit: usize,
    names: &Names,
    order: &mut Vec<(i64, Weight)>,
) -> Result<(), DbError> {
    let listed = order.iter().map(|(test, _)| *test);
    let known: HashSet<i64> = listed.chain(names.iter().map(|(earlier, _)| earlier)).collect();
    let enough = u32::try_from(limit.saturating_add(known.len())).unwrap_or(u32::MAX);
    let others = db.first_tests(project, enough).await?;
    order.extend(
        others.into_iter().filter(|test| !known.contains(test)).map(|test| (test, Weight::default())),
    );
    Ok(())
}

/// What is shown of tests in an order.
async fn shown<const N: usize>(
    db: &Db,
    window: Window,
    order: &[(i64, Weight)],
    days: &Days<'_>,
    sums: &BTreeMap<TreatmentClass, ClassSums<N>>,
) -> Result<Vec<TestRanked>, DbError> {
    let numbers: Vec<i64> = order.iter().map(|(test, _)| *test).collect();
    let took = days.took(&numbers, window);
    let flaky: Vec<i64> =
        order.iter().filter(|(_, weight)| weight.flips > 0 || weight.both).map(|(test, _)| *test).collect();
    let mut costs: HashMap<i64, CiCost> = HashMap::new();
    let (flaky, everyone) = (days.names().with_earlier(&flaky), days.names().with_earlier(&numbers));
    let (cost, known) =
        tokio::try_join!(db.ci_costs(&flaky, window.start(), window.end()), db.tests_by_number(&everyone))?;
    for (test, cost) in cost {
        costs.entry(days.names().now(test)).or_default().add(cost);
    }
    let mut names: HashMap<i64, (TestId, UnixMicros, UnixMicros)> = HashMap::new();
    for (number, test, first, last) in &known {
        names.insert(*number, (test.clone(), *first, *last));
    }
    for (number, _, first, last) in known.iter().filter(|(number, ..)| days.names().is_earlier(*number)) {
        if let Some((_, since, until)) = names.get_mut(&days.names().now(*number)) {
            (*since, *until) = ((*since).min(*first), (*until).max(*last));
        }
    }
    let mut tests = Vec::with_capacity(order.len());
    for (number, weight) in order {
        let Some((test, first_seen, last_seen)) = names.get(number) else { continue };
        let mut cost = CostSeen::default().in_ci(costs.get(number).copied().unwrap_or_default());
        let mut classes = Vec::new();
        for (class, of_class) in sums {
            let sum: RunsSeen = of_class.of(*number)[0];
            if sum.runs == 0 {
                continue;
            }
            let took: Option<&Took> = took.get(&(*number, *class));
            let minutes = minutes(took.map_or(0.0, |took| took.micros));
            if *class == TreatmentClass::Ci {
                cost.ci_runs += sum.runs;
                cost.ci_minutes += minutes;
            } else {
                cost.farm_runs += sum.runs;
                cost.farm_minutes += minutes;
            }
            classes.push(ClassRanked {
                class: class.word().to_owned(),
                runs: sum.runs,
                failures: sum.failures,
                rate: RateSeen::of(sum.failures, sum.runs, Confidence::DEFAULT),
                p50_ms: took.and_then(Took::median_ms),
            });
        }
        tests.push(TestRanked {
            test: test.to_string(),
            first_seen: *first_seen,
            last_seen: *last_seen,
            classes,
            flips: weight.flips,
            moved: weight.moved,
            cost: (weight.flips > 0 || weight.both).then_some(cost),
        });
    }
    Ok(tests)
}

/// One day of a project.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProjectDay {
    /// The date, `2026-11-28`.
    pub date: String,
    /// Passes and failures in plain sweeps and in CI.
    pub runs: u64,
    /// Failures among them.
    pub failures: u64,
    /// Tests that ran.
    pub tests: u64,
    /// Tests that both passed and failed that day.
    pub mixed: u64,
}

/// A project over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trends {
    /// `flakefarm.trends/v1`.
    pub schema: String,
    /// The project.
    pub project: String,
    /// The window.
    pub window: Window,
    /// Its days, those without runs left out: plain runs, those of CI and those that were not isolated.
    pub days: Vec<ProjectDay>,
    /// The project's runs that this rests on.
    pub runs: Vec<RunsOfClass>,
    /// Flips in CI by branch, the most first.
    pub flips_by_branch: Vec<BranchFlips>,
    /// How long tests stay red.
    pub recovery: Recovery,
    /// What is new this week.
    pub week: Week,
    /// Tests that fail together.
    pub clusters: Vec<of_week::ClusterSeen>,
    /// What is missing, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<String>,
}

/// A project over a window.
pub async fn trends(db: &Db, project: &str, window: Window) -> Result<Trends, DbError> {
    let (_, before) = of_week::windows(window.to);
    let rows = db.project_days(project, window.from.min(before.from), window.to).await?;
    let names = Names::read(db, project).await?;
    let days = Days::open(&rows, &names);
    let (runs, flips_by_branch, recovery, week, clusters, gaps) = Box::pin(async {
        tokio::try_join!(
            db.runs_by_class(project, window.start(), window.end()),
            db.flips_by_branch(project, window.start(), window.end()),
            of_week::recovery(db, &days, window),
            of_week::of_days(db, &days, window.to),
            of_week::clusters(db, project, window, &names),
            noted_gaps(db, project, window),
        )
    })
    .await?;
    Ok(Trends {
        schema: "flakefarm.trends/v1".to_owned(),
        project: project.to_owned(),
        window,
        days: of_days(&days, window),
        runs,
        flips_by_branch,
        recovery,
        week,
        clusters,
        gaps,
    })
}

fn of_days(days: &Days<'_>, window: Window) -> Vec<ProjectDay> {
    let of_day = |(day, tests): (i64, Vec<(i64, u64, u64)>)| ProjectDay {
        date: date_of(day).to_string(),
        runs: tests.iter().map(|(_, runs, _)| runs).sum(),
        failures: tests.iter().map(|(.., failures)| failures).sum(),
        tests: tests.iter().filter(|(_, runs, _)| *runs > 0).count() as u64,
        mixed: tests.iter().filter(|(_, runs, failures)| *failures > 0 && failures < runs).count() as u64,
    };
    days.daily(&AS_IT_IS, window).map(of_day).collect()
}
