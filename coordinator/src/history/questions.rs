//! What history answers: one test over time, the tests of a project ranked, a project over time. Points
//! say what the last days were, sums what came before; where both know a day, the one that knows more of it
//! counts, so that a sample store that is away or was emptied costs nothing that was summed up.

use super::aggregate::{self, Aggregate};
use super::collect::{date_of, month_of};
use crate::db::{Db, DbError, FlipRow, HistoryRow, PackRow, PackSpan, SignatureRow, TestRow};
use crate::plan::Confidence;
use crate::score::interval::rate_interval;
use flakefarm_shared::samples::{RunTag, SampleStore, codec};
use flakefarm_shared::{TestId, TreatmentClass, UnixMicros};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Days that points are asked for.
const POINT_DAYS: i64 = 15;
/// Verdicts of a test that are shown.
const VERDICTS: u32 = 20;

/// A window of days: from one (inclusive) to another (exclusive), counted from the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize)]
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
        let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let rate = (sum.runs() > 0).then(|| {
            let rate = rate_interval(count(sum.failures), count(sum.runs()), confidence);
            RateSeen {
                estimate: rate.estimate,
                lower: rate.lower,
                upper: rate.upper,
                confidence: confidence.get(),
            }
        });
        let ms = |us: Option<f64>| us.map(|us| us / 1e3);
        Self {
            runs: sum.runs(),
            failures: sum.failures,
            skips: sum.skips,
            rate,
            p50_ms: ms(sum.quantile_us(0.5)),
            p90_ms: ms(sum.quantile_us(0.9)),
            mean_ms: ms(sum.mean_us()),
        }
    }
}

/// One day of a test.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassSeen {
    /// What the runs are evidence of.
    pub class: &'static str,
    /// All of the window.
    pub summary: Summary,
    /// Its days on which the test ran, oldest first.
    pub days: Vec<DaySeen>,
}

/// A failure of a test, over the window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SignatureSeen {
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
}

/// A revision and variant on which CI saw a test pass and fail.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FlipSeen {
    /// The revision.
    pub revision: String,
    /// The variant; empty for none.
    pub variant: String,
    /// The branch.
    pub branch: Option<String>,
    /// When it was noticed.
    pub at: UnixMicros,
}

/// What a run of this farm found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VerdictSeen {
    /// The run.
    pub run: String,
    /// The revision.
    pub revision: Option<String>,
    /// What it is evidence of.
    pub class: &'static str,
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
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TestHistory {
    /// `flakefarm.history/v1`.
    pub schema: &'static str,
    /// The project.
    pub project: String,
    /// The test.
    pub test: String,
    /// What it was called before, where that was linked.
    pub earlier_names: Vec<String>,
    /// The window.
    pub window: Window,
    /// When it was first seen, in microseconds since the epoch.
    pub first_seen: UnixMicros,
    /// When it was last seen.
    pub last_seen: UnixMicros,
    /// By treatment class; classes are never added up.
    pub classes: Vec<ClassSeen>,
    /// How it failed in CI, the most often first.
    pub signatures: Vec<SignatureSeen>,
    /// Where CI saw it pass and fail.
    pub flips: Vec<FlipSeen>,
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
    let mut days: BTreeMap<(TreatmentClass, i64), Aggregate> = BTreeMap::new();
    let (from_month, _) = month_of(window.from);
    for number in std::iter::once(row.number).chain(earlier.iter().map(|(number, _)| *number)) {
        for pack in db.packs_of_test(number, PackSpan::Days, from_month, window.to).await? {
            for (day, sum) in days_of(&pack) {
                days.entry((pack.class, day)).or_default().merge(&sum);
            }
        }
    }
    let mut gaps = Vec::new();
    if let Some(samples) = samples {
        let names = std::iter::once(test).chain(earlier.iter().map(|(_, name)| name));
        if let Err(why) = recent(db, samples, project, names, window, &mut days).await? {
            gaps.push(format!("the sample store does not answer, so the last hours may be missing: {why}"));
        }
    }
    days.retain(|(_, day), _| (window.from..window.to).contains(day));
    for note in db.noted_days(project, window.from, window.to).await? {
        gaps.extend(note.gap.map(|gap| format!("{}: {gap}", date_of(note.day))));
    }
    let since = codec::day_start(window.from);
    Ok(Some(TestHistory {
        schema: "flakefarm.history/v1",
        project: project.to_owned(),
        test: test.to_string(),
        earlier_names: earlier.iter().map(|(_, name)| name.to_string()).collect(),
        window,
        first_seen: row.first_seen,
        last_seen: row.last_seen,
        classes: classes(&days, confidence),
        signatures: db.signatures_of(row.number, since).await?.into_iter().map(signature).collect(),
        flips: db.flips_of(row.number, since).await?.into_iter().map(flip).collect(),
        verdicts: db.test_history(project, test, VERDICTS).await?.into_iter().map(verdict).collect(),
        gaps,
    }))
}

/// The days of a pack of days.
fn days_of(pack: &PackRow) -> impl Iterator<Item = (i64, Aggregate)> {
    let start = pack.start;
    let sums = aggregate::unpack(&pack.packed).unwrap_or_default();
    sums.into_iter().map(move |(place, sum)| (start + i64::from(place) - 1, sum))
}

/// Puts what points say of the last days in the place of sums that know less.
async fn recent(
    db: &Db,
    samples: &dyn SampleStore,
    project: &str,
    names: impl Iterator<Item = &TestId>,
    window: Window,
    days: &mut BTreeMap<(TreatmentClass, i64), Aggregate>,
) -> Result<Result<(), String>, DbError> {
    let from = window.from.max(window.to - POINT_DAYS);
    let (since, until) = (codec::day_start(from), codec::day_start(window.to));
    let incidents: HashSet<RunTag> =
        db.incidents(project, since).await?.into_iter().map(codec::run_tag).collect();
    let mut found: BTreeMap<(TreatmentClass, i64), Aggregate> = BTreeMap::new();
    for name in names {
        let points = match samples.points(project, name, since, until).await {
            Ok(points) => points,
            Err(error) => return Ok(Err(error.to_string())),
        };
        for stored in points.iter().filter(|stored| stored.run.is_none_or(|run| !incidents.contains(&run))) {
            let key = (stored.class, codec::day_of(stored.point.at));
            found.entry(key).or_default().merge(&Aggregate::of([stored]));
        }
    }
    for (key, sum) in found {
        let known = days.entry(key).or_default();
        if sum.runs() + sum.skips >= known.runs() + known.skips {
            *known = sum;
        }
    }
    Ok(Ok(()))
}

fn classes(days: &BTreeMap<(TreatmentClass, i64), Aggregate>, confidence: Confidence) -> Vec<ClassSeen> {
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
    classes
        .into_iter()
        .map(|(class, (total, days))| ClassSeen {
            class: class.word(),
            summary: Summary::of(&total, confidence),
            days,
        })
        .collect()
}

fn signature(row: SignatureRow) -> SignatureSeen {
    SignatureSeen {
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
        class: row.class.word(),
        verdict: row.verdict.verdict,
        attempts: row.verdict.attempts,
        failures: row.verdict.failures,
        finished_at: row.verdict.finished_at,
    }
}

/// One test of a ranking.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
}

/// One test of a ranking in one treatment class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassRanked {
    /// What the runs are evidence of.
    pub class: &'static str,
    /// Passes and failures.
    pub runs: u64,
    /// Failures.
    pub failures: u64,
    /// The median duration in milliseconds.
    pub p50_ms: Option<f64>,
}

/// The tests of a project, those first that were seen to pass and fail, then by failures.
pub async fn ranking(db: &Db, project: &str, window: Window) -> Result<Vec<TestRanked>, DbError> {
    let tests: HashMap<i64, TestRow> =
        db.tests(project).await?.into_iter().map(|row| (row.number, row)).collect();
    let suspects: HashMap<TestId, u64> = db
        .suspects(project, codec::day_start(window.from), codec::day_start(window.to))
        .await?
        .into_iter()
        .map(|suspect| (suspect.test, suspect.flips))
        .collect();
    let mut sums: HashMap<i64, BTreeMap<TreatmentClass, Aggregate>> = HashMap::new();
    let (from_month, _) = month_of(window.from);
    for pack in db.packs_of_project(project, from_month).await? {
        for (_, sum) in days_of(&pack).filter(|(day, _)| (window.from..window.to).contains(day)) {
            sums.entry(pack.test).or_default().entry(pack.class).or_default().merge(&sum);
        }
    }
    let mut ranked: Vec<TestRanked> = tests
        .into_iter()
        .map(|(number, row)| TestRanked {
            flips: suspects.get(&row.test).copied().unwrap_or(0),
            test: row.test.0,
            first_seen: row.first_seen,
            last_seen: row.last_seen,
            classes: sums
                .remove(&number)
                .unwrap_or_default()
                .into_iter()
                .map(|(class, sum)| ClassRanked {
                    class: class.word(),
                    runs: sum.runs(),
                    failures: sum.failures,
                    p50_ms: sum.quantile_us(0.5).map(|us| us / 1e3),
                })
                .collect(),
        })
        .collect();
    ranked.sort_by(|a, b| weight(b).cmp(&weight(a)).then_with(|| a.test.cmp(&b.test)));
    Ok(ranked)
}

/// Flips, then whether it both passed and failed as it is, then failures.
fn weight(test: &TestRanked) -> (u64, bool, u64) {
    let as_it_is = |class: &&ClassRanked| matches!(class.class, "plain" | "unisolated" | "ci");
    let mut both = false;
    let mut failures = 0;
    for class in test.classes.iter().filter(as_it_is) {
        both |= class.failures > 0 && class.failures < class.runs;
        failures += class.failures;
    }
    (test.flips, both, failures)
}

/// One day of a project.
#[derive(Debug, Clone, PartialEq, Serialize)]
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

/// A project over time: plain runs, those of CI and those that were not isolated, days without runs left
/// out.
pub async fn trends(db: &Db, project: &str, window: Window) -> Result<Vec<ProjectDay>, DbError> {
    let (from_month, _) = month_of(window.from);
    let mut days: BTreeMap<i64, HashMap<i64, (u64, u64)>> = BTreeMap::new();
    for pack in db.packs_of_project(project, from_month).await? {
        let counts =
            matches!(pack.class, TreatmentClass::Plain | TreatmentClass::Unisolated | TreatmentClass::Ci);
        if !counts {
            continue;
        }
        for (day, sum) in days_of(&pack).filter(|(day, _)| (window.from..window.to).contains(day)) {
            let (runs, failures) = days.entry(day).or_default().entry(pack.test).or_default();
            *runs += sum.runs();
            *failures += sum.failures;
        }
    }
    let day = |(day, tests): (i64, HashMap<i64, (u64, u64)>)| ProjectDay {
        date: date_of(day).to_string(),
        runs: tests.values().map(|(runs, _)| runs).sum(),
        failures: tests.values().map(|(_, failures)| failures).sum(),
        tests: tests.values().filter(|(runs, _)| *runs > 0).count() as u64,
        mixed: tests.values().filter(|(runs, failures)| *failures > 0 && failures < runs).count() as u64,
    };
    Ok(days.into_iter().map(day).collect())
}
