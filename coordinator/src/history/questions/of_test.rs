//! One test over time.

use super::changing::{self, ChangeSeen};
use super::costing::{CostSeen, minutes};
use super::{AS_IT_IS, Summary, Window, noted_gaps};
use crate::calendar::date_of;
use crate::db::{Db, DbError, FlipRow, HistoryRow, RunsOfClass, SignatureDay, SignatureRow};
use crate::history::aggregate::Aggregate;
use crate::history::excluded::Excluded;
use crate::plan::Confidence;
use flakefarm_shared::samples::{SampleStore, codec};
use flakefarm_shared::{TestId, TreatmentClass, UnixMicros};
use serde::{Deserialize, Serialize};
use std::collections::btree_map::{BTreeMap, Entry};

/// Days that points are asked for.
const POINT_DAYS: i64 = 15;
/// Days up to now of which points are there, however short they are kept.
const STAYING: i64 = 3;
/// Verdicts of a test that are shown.
const VERDICTS: u32 = 20;

/// One day of a test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DaySeen {
    /// The date, `2026-11-28`.
    pub date: String,
    /// Passes and failures.
    pub runs: u64,
    /// Failures.
    pub failures: u64,
    /// The median duration in milliseconds.
    pub p50_ms: Option<f64>,
}

/// One test in one treatment class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassSeen {
    /// What the runs are evidence of.
    pub class: String,
    /// All of the window.
    pub summary: Summary,
    /// The date of the first failure that is known, before the window too; none if there is none.
    pub first_failed: Option<String>,
    /// The date of the last one.
    pub last_failed: Option<String>,
    /// Its days on which the test ran, oldest first.
    pub days: Vec<DaySeen>,
    /// When it became better or worse, faster or slower, oldest first; where the class says how it fares.
    pub changes: Vec<ChangeSeen>,
}

/// A failure of a test, over the window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignatureSeen {
    /// What the failing attempts are evidence of.
    pub class: String,
    /// Equal for failures that look alike.
    pub signature: String,
    /// How often.
    pub count: u64,
    /// First and last time, in microseconds since the epoch.
    pub first_at: UnixMicros,
    /// The last.
    pub last_at: UnixMicros,
    /// One of the messages.
    pub message: String,
    /// How often, by date, oldest first.
    pub days: Vec<(String, u64)>,
}

/// Flips of a test on one branch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BranchSeen {
    /// The branch; none: nobody said.
    pub branch: Option<String>,
    /// Revisions and variants on which CI saw the test pass and fail.
    pub flips: u64,
}

/// A revision and variant on which CI saw a test pass and fail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlipSeen {
    /// The revision.
    pub revision: String,
    /// The variant; empty for none.
    pub variant: String,
    /// The branch.
    pub branch: Option<String>,
    /// When the run ended that showed it.
    pub at: UnixMicros,
}

/// What a run of this farm found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerdictSeen {
    /// The run.
    pub run: String,
    /// The revision.
    pub revision: Option<String>,
    /// What it is evidence of.
    pub class: String,
    /// The verdict.
    pub verdict: String,
    /// Plain attempts.
    pub attempts: u32,
    /// Failures among them.
    pub failures: u32,
    /// When it ended.
    pub finished_at: UnixMicros,
}

/// One test over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestHistory {
    /// `flakefarm.history/v1`.
    pub schema: String,
    /// The project.
    pub project: String,
    /// The test.
    pub test: String,
    /// What it was called before, where that was linked.
    pub earlier_names: Vec<String>,
    /// What it is called now, where that was linked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub later_name: Option<String>,
    /// The window.
    pub window: Window,
    /// When it was first seen, in microseconds since the epoch.
    pub first_seen: UnixMicros,
    /// When it was last seen.
    pub last_seen: UnixMicros,
    /// By treatment class; classes are never added up.
    pub classes: Vec<ClassSeen>,
    /// How it failed, the most often first.
    pub signatures: Vec<SignatureSeen>,
    /// Where CI saw it pass and fail.
    pub flips: Vec<FlipSeen>,
    /// The same by branch, the most first.
    pub flips_by_branch: Vec<BranchSeen>,
    /// What it has cost, if it is flaky.
    pub cost: Option<CostSeen>,
    /// The project's runs that this rests on.
    pub runs: Vec<RunsOfClass>,
    /// What sweeps found, the newest first.
    pub verdicts: Vec<VerdictSeen>,
    /// What is missing, in words.
    pub gaps: Vec<String>,
}

/// One test over a window; none if nobody ever saw it.
pub async fn test_history(
    db: &Db,
    samples: Option<&dyn SampleStore>,
    project: &str,
    test: &TestId,
    window: Window,
    confidence: Confidence,
) -> Result<Option<TestHistory>, DbError> {
    let Some(row) = db.test(project, test).await? else { return Ok(None) };
    let earlier = db.earlier_tests(row.number).await?;
    let numbers: Vec<i64> =
        std::iter::once(row.number).chain(earlier.iter().map(|(number, _)| *number)).collect();
    let mut all = changing::all_days(db, &numbers, window.to).await?;
    let mut gaps = Vec::new();
    if let Some(samples) = samples {
        let names = std::iter::once(test).chain(earlier.iter().map(|(_, name)| name));
        match recent(db, samples, project, names, window, &mut all).await? {
            Ok(gone) => gaps.extend(gone.map(|(runs, from)| {
                format!(
                    "the sample store has lost points of {runs} runs since {}: their sums are shown, and what was not \
                     summed up yet is missing",
                    date_of(from)
                )
            })),
            Err(why) => {
                gaps.push(format!("the sample store does not answer, so the last hours may be missing: {why}"));
            }
        }
    }
    let mut days = all.clone();
    days.retain(|(_, day), _| (window.from..window.to).contains(day));
    gaps.extend(noted_gaps(db, project, window).await?);
    let since = window.start();
    let mut seen = classes(&days, &all, confidence);
    let moments = changing::moments(db, &numbers, (window.from, window.to), &days).await?;
    for class in &mut seen {
        let of_word = TreatmentClass::of_word(&class.class).filter(|class| AS_IT_IS.contains(class));
        if let Some((word, moments)) = of_word.and_then(|class| Some((class, moments.get(&class)?))) {
            class.changes = changing::changes(db, project, word, moments).await?;
        }
    }
    let mut by_day = Vec::new();
    let mut rows = Vec::new();
    let mut flips = Vec::new();
    let mut branches: BTreeMap<Option<String>, u64> = BTreeMap::new();
    for number in &numbers {
        by_day.extend(db.signature_days(*number, since).await?);
        rows.extend(db.signatures_of(*number, since).await?);
        flips.extend(db.flips_of(*number, since).await?.into_iter().map(flip));
        for (branch, flips) in db.test_flips_by_branch(*number, since).await? {
            *branches.entry(branch).or_default() += flips;
        }
    }
    flips.sort_by(|a: &FlipSeen, b| b.at.cmp(&a.at).then_with(|| a.revision.cmp(&b.revision)));
    let signatures = signatures(rows, by_day);
    let mut flips_by_branch: Vec<BranchSeen> =
        branches.into_iter().map(|(branch, flips)| BranchSeen { branch, flips }).collect();
    flips_by_branch.sort_by(|a, b| b.flips.cmp(&a.flips).then_with(|| a.branch.cmp(&b.branch)));
    let cost = cost(db, &numbers, window, &days, !flips.is_empty()).await?;
    let mut verdicts = db.test_history(project, test, VERDICTS).await?;
    for (_, name) in &earlier {
        verdicts.extend(db.test_history(project, name, VERDICTS).await?);
    }
    verdicts.sort_by_key(|row| std::cmp::Reverse(row.verdict.finished_at));
    let seen_before = db.tests_by_number(&numbers[1..]).await?;
    let first_seen = seen_before.iter().map(|(_, _, first, _)| *first).fold(row.first_seen, i64::min);
    let last_seen = seen_before.iter().map(|(_, _, _, last)| *last).fold(row.last_seen, i64::max);
    Ok(Some(TestHistory {
        schema: "flakefarm.history/v1".to_owned(),
        project: project.to_owned(),
        test: test.to_string(),
        earlier_names: earlier.iter().map(|(_, name)| name.to_string()).collect(),
        later_name: db.later_test(row.number).await?.map(|name| name.to_string()),
        window,
        first_seen,
        last_seen,
        classes: seen,
        signatures,
        flips,
        flips_by_branch,
        cost,
        runs: db.runs_by_class(project, window.start(), window.end()).await?,
        verdicts: verdicts.into_iter().take(VERDICTS as usize).map(verdict).collect(),
        gaps,
    }))
}

/// What a test has cost; none if it was not seen to be flaky.
async fn cost(
    db: &Db,
    numbers: &[i64],
    window: Window,
    days: &BTreeMap<(TreatmentClass, i64), Aggregate>,
    flipped: bool,
) -> Result<Option<CostSeen>, DbError> {
    let mut cost = CostSeen::default();
    let mut by_class: BTreeMap<TreatmentClass, (u64, u64)> = BTreeMap::new();
    for ((class, _), sum) in days {
        let minutes = minutes(sum.sum_us as f64);
        if *class == TreatmentClass::Ci {
            cost.ci_runs += sum.runs();
            cost.ci_minutes += minutes;
        } else {
            cost.farm_runs += sum.runs();
            cost.farm_minutes += minutes;
        }
        let (runs, failures) = by_class.entry(*class).or_default();
        *runs += sum.runs();
        *failures += sum.failures;
    }
    let both = |class: &TreatmentClass| {
        by_class.get(class).is_some_and(|(runs, failures)| *failures > 0 && failures < runs)
    };
    if !flipped && !AS_IT_IS.iter().any(both) {
        return Ok(None);
    }
    for (_, of_name) in db.ci_costs(numbers, window.start(), window.end()).await? {
        let in_ci = CostSeen::default().in_ci(of_name);
        cost.failed_pipelines += in_ci.failed_pipelines;
        cost.retries += in_ci.retries;
        cost.reruns += in_ci.reruns;
        cost.rerun_minutes += in_ci.rerun_minutes;
    }
    Ok(Some(cost))
}

/// Puts what points say of the last days in the place of sums that know less. Gives how many runs of the last days
/// are in sums and have no points any more, and the first such day.
async fn recent(
    db: &Db,
    samples: &dyn SampleStore,
    project: &str,
    names: impl Iterator<Item = &TestId>,
    window: Window,
    days: &mut BTreeMap<(TreatmentClass, i64), Aggregate>,
) -> Result<Result<Option<(u64, i64)>, String>, DbError> {
    let from = window.from.max(window.to - POINT_DAYS);
    let (since, until) = (codec::day_start(from), codec::day_start(window.to));
    let excluded = Excluded::of(db, project, since).await?;
    let mut found: BTreeMap<(TreatmentClass, i64), Aggregate> = BTreeMap::new();
    for name in names {
        let points = match samples.points(project, name, since, until).await {
            Ok(points) => points,
            Err(error) => return Ok(Err(error.to_string())),
        };
        for stored in points.iter().filter(|stored| excluded.counts(stored)) {
            let key = (stored.class, codec::day_of(stored.point.at));
            found.entry(key).or_default().merge(&Aggregate::of([stored]));
        }
    }
    let mut gone: Option<(u64, i64)> = None;
    let staying = from.max(window.to - STAYING)..window.to;
    for ((class, day), sum) in days.iter().filter(|((_, day), _)| staying.contains(day)) {
        let there = found.get(&(*class, *day)).map_or(0, Aggregate::runs);
        if let Some(lost) = sum.runs().checked_sub(there).filter(|lost| *lost > 0) {
            let (runs, first) = gone.unwrap_or((0, *day));
            gone = Some((runs + lost, first.min(*day)));
        }
    }
    for (key, sum) in found {
        let known = days.entry(key).or_default();
        if sum.runs() + sum.skips >= known.runs() + known.skips {
            *known = sum;
        }
    }
    Ok(Ok(gone))
}

/// The classes of a window's `days`; when each first and last failed is said by `all` days.
fn classes(
    days: &BTreeMap<(TreatmentClass, i64), Aggregate>,
    all: &BTreeMap<(TreatmentClass, i64), Aggregate>,
    confidence: Confidence,
) -> Vec<ClassSeen> {
    let mut classes: BTreeMap<TreatmentClass, (Aggregate, Vec<DaySeen>)> = BTreeMap::new();
    for ((class, day), sum) in days {
        let (total, seen) = classes.entry(*class).or_default();
        total.merge(sum);
        seen.push(DaySeen {
            date: date_of(*day).to_string(),
            runs: sum.runs(),
            failures: sum.failures,
            p50_ms: sum.quantile_us(0.5).map(|us| us / 1e3),
        });
    }
    let mut seen = Vec::new();
    for (class, (total, days)) in classes {
        let mut red = all.range((class, i64::MIN)..=(class, i64::MAX)).filter(|(_, sum)| sum.failures > 0);
        let date = |((_, day), _): (&(TreatmentClass, i64), &Aggregate)| date_of(*day).to_string();
        let first_failed = red.next();
        seen.push(ClassSeen {
            class: class.word().to_owned(),
            summary: Summary::of(&total, confidence),
            first_failed: first_failed.map(date),
            last_failed: red.next_back().or(first_failed).map(date),
            days,
            changes: Vec::new(),
        });
    }
    seen
}

/// Failures by class and signature, the most often first, whatever the test was called then.
fn signatures(rows: Vec<SignatureRow>, by_day: Vec<SignatureDay>) -> Vec<SignatureSeen> {
    let mut days: BTreeMap<(String, u64), BTreeMap<i64, u64>> = BTreeMap::new();
    for day in by_day {
        *days.entry((day.class, day.signature)).or_default().entry(day.day).or_default() += day.count;
    }
    let mut sums: BTreeMap<(String, u64), SignatureRow> = BTreeMap::new();
    for row in rows {
        match sums.entry((row.class.clone(), row.signature)) {
            Entry::Vacant(entry) => drop(entry.insert(row)),
            Entry::Occupied(mut entry) => {
                let sum = entry.get_mut();
                sum.count += row.count;
                sum.first_at = sum.first_at.min(row.first_at);
                sum.last_at = sum.last_at.max(row.last_at);
            }
        }
    }
    let mut rows: Vec<SignatureRow> = sums.into_values().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.count));
    let seen = |row: SignatureRow| {
        let days = days.remove(&(row.class.clone(), row.signature)).unwrap_or_default();
        signature(row, days)
    };
    rows.into_iter().map(seen).collect()
}

fn signature(row: SignatureRow, days: BTreeMap<i64, u64>) -> SignatureSeen {
    SignatureSeen {
        days: days.into_iter().map(|(day, count)| (date_of(day).to_string(), count)).collect(),
        class: row.class,
        signature: format!("{:016x}", row.signature),
        count: row.count,
        first_at: row.first_at,
        last_at: row.last_at,
        message: row.message,
    }
}

fn flip(row: FlipRow) -> FlipSeen {
    FlipSeen { revision: row.revision, variant: row.variant, branch: row.branch, at: row.at }
}

fn verdict(row: HistoryRow) -> VerdictSeen {
    VerdictSeen {
        run: row.sweep.to_string(),
        revision: row.revision,
        class: row.class.word().to_owned(),
        verdict: row.verdict.verdict,
        attempts: row.verdict.attempts,
        failures: row.verdict.failures,
        finished_at: row.verdict.finished_at,
    }
}
