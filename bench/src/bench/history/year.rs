//! `flakefarm bench --history --year`: five hundred days of a project by a clock that is passed in, with the
//! product's own collection after each of them. What is kept must not grow once its windows are full, and no
//! verdict may be without its evidence. Of each day all sums, runs, failures and flips are recorded, and the
//! points of the tests that questions are asked of; the sums of a month's days once, when it is over.

use super::project::{NAME, Project};
use super::{Claim, Figures, HistorySize};
use crate::Unmeasured;
use crate::bench::stores;
use flakefarm_coordinator::calendar::month_of;
use flakefarm_coordinator::db::{Db, NewSweep, PackSpan, SweepState, VerdictRow};
use flakefarm_coordinator::garbage::{self, Doing};
use flakefarm_coordinator::history::retention::HistoryRetention;
use flakefarm_coordinator::stores::sqlite_samples::SqliteSamples;
use flakefarm_shared::blobs::Blobs;
use flakefarm_shared::samples::{Retention, Samples, codec};
use flakefarm_shared::{Class, Digest, SweepId, UnixMicros, now_micros};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

/// Longer than anything is kept, with a month on top that is packed together.
const DAYS: i64 = 500;
/// When all windows are full: days are kept for 400, by whole months.
const FULL: i64 = 440;
/// Days between looks at the sizes.
const LOOK: i64 = 20;
/// A sweep each so many days.
const SWEEP: i64 = 10;
const MIB: f64 = 1_048_576.0;

/// Rows, and bytes of files, on one day.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    day: i64,
    hours: u64,
    days: u64,
    evidence: u64,
    database: u64,
    samples: u64,
}

struct Year<'a> {
    project: Project,
    db: Db,
    samples: Samples,
    blobs: Blobs,
    state: &'a Path,
    clock: Arc<AtomicI64>,
    /// Of each sweep, its report and what that shows.
    sweeps: Vec<(SweepId, Digest, Digest)>,
}

/// Measures it, on embedded stores in `state`.
pub(super) async fn measure(
    size: HistorySize,
    state: &Path,
    figures: &mut Figures,
    say: &dyn Fn(&str),
) -> Result<(), Unmeasured> {
    let clock = Arc::new(AtomicI64::new(now_micros()));
    let read = Arc::clone(&clock);
    let now = move || read.load(Ordering::Relaxed);
    let path = state.join("year-samples.db");
    let samples = SqliteSamples::open_with_clock(&path, Retention::default(), now).await?;
    let mut year = Year {
        project: Project::new(size, now_micros()),
        db: stores::open_database(&format!("sqlite:{}", state.join("year.db").display())).await?,
        samples: Arc::new(samples),
        blobs: stores::open_blobs(&format!("file://{}", state.join("year-blobs").display()))?,
        state,
        clock,
        sweeps: Vec::new(),
    };
    let begun = Instant::now();
    let looks = year.live(say).await?;
    figures.add(format!("{DAYS} days, recorded and collected"), begun.elapsed().as_secs_f64(), "s", None);
    for look in looks.iter().filter(|look| look.day % 100 == 0) {
        let what = format!(
            "after {} days: {} packs of hours, {} of days, {} failures, flips and runs; the database",
            look.day, look.hours, look.days, look.evidence
        );
        figures.add(what, look.database as f64 / MIB, "MiB", None);
        let what = format!("after {} days: the samples file", look.day);
        figures.add(what, look.samples as f64 / MIB, "MiB", None);
    }
    // From the first half of the time since a window was full to the second. Means: a file's pages come and go.
    let growth = |of: fn(&Sizes) -> u64, full: i64| {
        let since: Vec<f64> =
            looks.iter().filter(|look| look.day >= full).map(|look| of(look) as f64).collect();
        let mean = |some: &[f64]| some.iter().sum::<f64>() / some.len().max(1) as f64;
        let (first, second) = since.split_at(since.len() / 2);
        (mean(second) / mean(first).max(1.0) - 1.0) * 100.0
    };
    let claim = || Some(Claim::AtMost(2.0));
    figures.add("the database grows after its windows by", growth(|look| look.database, FULL), "%", claim());
    figures.add("packs of hours grow after 90 days by", growth(|look| look.hours, 100), "%", claim());
    figures.add("the samples file grows after 14 days by", growth(|look| look.samples, 40), "%", claim());
    let bare = year.verdicts_without_evidence().await?;
    let what = format!("verdicts without their evidence, of {}", year.sweeps.len());
    figures.add(what, bare as f64, "", Some(Claim::AtMost(0.0)));
    year.db.close().await;
    Ok(())
}

impl Year<'_> {
    async fn live(&mut self, say: &dyn Fn(&str)) -> Result<Vec<Sizes>, Unmeasured> {
        let first = codec::day_of(now_micros());
        let numbers = self.project.note_tests(&self.db, first, first).await?;
        let keep = HistoryRetention::default();
        let (mut looks, mut month) = (Vec::new(), Vec::new());
        for (passed, day) in (1..).zip(first..first + DAYS) {
            let now = codec::day_start(day + 1) + 3 * 3_600_000_000;
            self.clock.store(now, Ordering::Relaxed);
            self.project.record_sums_of(&self.db, &numbers, day).await?;
            self.project.record_runs_of(&self.db, &numbers, day).await?;
            self.project.record_points_of(&self.samples, day).await?;
            month.push(day);
            let of_month = month_of(day).0;
            if month_of(day + 1).0 != of_month {
                self.project.record_month(&self.db, &numbers, of_month, &month).await?;
                month.clear();
            }
            if passed % SWEEP == 1 {
                self.sweep(now).await?;
            }
            let marker = Digest::of(b"marker");
            garbage::collect(&self.db, &self.blobs, &keep, now, Doing::Removing, &marker).await?;
            if passed % LOOK == 0 {
                looks.push(self.sizes(passed).await?);
                say(&format!("day {passed}: {:?}", looks.last()));
            }
        }
        Ok(looks)
    }

    /// A sweep that is over: its report, what that shows, and a verdict.
    async fn sweep(&mut self, now: UnixMicros) -> Result<(), Unmeasured> {
        let id = SweepId::new();
        let context = self.blobs.put_json(&serde_json::json!({ "of": id.to_string() })).await?;
        let shown = self.blobs.put(format!("what failed in {id}")).await?;
        let report =
            self.blobs.put_json(&serde_json::json!({ "output": shown, "of": id.to_string() })).await?;
        let sweep = NewSweep {
            id,
            project: NAME.to_owned(),
            revision: None,
            question: "{}".to_owned(),
            context,
            class: Class::Bulk,
            seed: 1,
            source: "/src".to_owned(),
            created_at: now,
        };
        self.db.create_sweep(&sweep).await?;
        let verdict = VerdictRow {
            project: NAME.to_owned(),
            test: self.project.asked()[0].clone(),
            verdict: "flaky".to_owned(),
            attempts: 10,
            failures: 1,
            estimate: 0.1,
            lower: 0.0,
            upper: 0.5,
            score: 0.5,
            p50_ms: 1.0,
            finished_at: now,
            fingerprint: None,
        };
        self.db.record_verdicts(id, &[verdict]).await?;
        self.db.finish_sweep(id, &SweepState::Answered, now, Some(&report)).await?;
        self.sweeps.push((id, report, shown));
        Ok(())
    }

    async fn sizes(&self, day: i64) -> Result<Sizes, Unmeasured> {
        Ok(Sizes {
            day,
            hours: self.db.count_packs_before(PackSpan::Hours, i64::MAX).await?,
            days: self.db.count_packs_before(PackSpan::Days, i64::MAX).await?,
            evidence: self.db.count_old_evidence(i64::MAX).await?,
            database: self.db.size().await?,
            samples: std::fs::metadata(self.state.join("year-samples.db"))?.len(),
        })
    }

    async fn verdicts_without_evidence(&self) -> Result<usize, Unmeasured> {
        let mut bare = 0;
        for (sweep, report, shown) in &self.sweeps {
            let row = self.db.sweep(*sweep).await?;
            let whole = row.is_some_and(|row| row.report.as_ref() == Some(report))
                && self.db.verdicts(*sweep).await?.len() == 1
                && self.blobs.contains(report).await?
                && self.blobs.contains(shown).await?;
            bare += usize::from(!whole);
        }
        Ok(bare)
    }
}
