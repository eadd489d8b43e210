//! A year and more of a project by a clock that is passed in: what is kept is flat after its windows, and no
//! verdict is without its evidence.
#![expect(clippy::unwrap_used, reason = "in a test, a failed step is the failure")]

use flakefarm_coordinator::db::{
    Db, FailureRow, NewJob, NewSweep, PackSpan, RunRow, SeenTest, Settlement, SweepState, VerdictRow,
};
use flakefarm_coordinator::garbage::{self, Doing, Garbage};
use flakefarm_coordinator::history::collect::collect_day;
use flakefarm_coordinator::history::questions::{self, Window};
use flakefarm_coordinator::history::retention::HistoryRetention;
use flakefarm_coordinator::plan::Confidence;
use flakefarm_coordinator::stores::sqlite_samples::SqliteSamples;
use flakefarm_shared::blobs::Blobs;
use flakefarm_shared::samples::{Point, Retention, SampleStore, codec};
use flakefarm_shared::{
    Class, Digest, JobId, Payload, RunOrigin, SweepId, TestId, TreatmentClass, UnixMicros, now_micros,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use uuid::Uuid;

const DAYS: i64 = 440;
const TESTS: usize = 5;
const PROJECT: &str = "shop";
const DAY: UnixMicros = 86_400_000_000;

struct Year {
    db: Db,
    samples: SqliteSamples,
    blobs: Blobs,
    clock: Arc<AtomicI64>,
    tests: Vec<TestId>,
    /// Of each sweep its final report and what that shows; and what its report does not show.
    reports: Vec<(Digest, Digest)>,
    artifacts: Vec<Digest>,
    sweeps: Vec<SweepId>,
}

impl Year {
    async fn begin(directory: &std::path::Path) -> Self {
        let clock = Arc::new(AtomicI64::new(now_micros()));
        let read = Arc::clone(&clock);
        let path = directory.join("samples.db");
        let now = move || read.load(Ordering::Relaxed);
        let samples = SqliteSamples::open_with_clock(&path, Retention::default(), now).await.unwrap();
        Self {
            db: Db::open(&format!("sqlite:{}", directory.join("farm.db").display())).await.unwrap(),
            samples,
            blobs: Blobs::open(&format!("file://{}", directory.join("blobs").display())).unwrap(),
            clock,
            tests: (0..TESTS).map(|number| TestId(format!("test_{number}"))).collect(),
            reports: Vec::new(),
            artifacts: Vec::new(),
            sweeps: Vec::new(),
        }
    }

    fn now(&self) -> UnixMicros {
        self.clock.load(Ordering::Relaxed)
    }

    /// A CI run of all tests, in which one failed, and flipped.
    async fn run(&self) {
        let (now, run) = (self.now(), Uuid::now_v7());
        self.db
            .record_run(&RunRow {
                id: run,
                project: PROJECT.to_owned(),
                origin: RunOrigin::Ci,
                class: TreatmentClass::Ci,
                level: None,
                revision: Some(run.to_string()),
                branch: None,
                environment: None,
                variant: Some(String::new()),
                ci: None,
                attempt: None,
                started_at: now,
                finished_at: Some(now),
            })
            .await
            .unwrap();
        let seen: Vec<SeenTest> =
            self.tests.iter().map(|test| SeenTest { test: test.clone(), parts: None }).collect();
        self.db.note_tests(PROJECT, &seen, now).await.unwrap();
        let points = [(TreatmentClass::Ci, Point::passed(now, 1_000))];
        let chunks: Vec<_> = self
            .tests
            .iter()
            .flat_map(|test| codec::chunks(PROJECT, test, run, JobId(run), &points))
            .collect();
        self.samples.append(&chunks).await.unwrap();
        let number = self.db.test_numbers(PROJECT, &self.tests[..1]).await.unwrap()[&self.tests[0]];
        let failure = FailureRow {
            test: number,
            batch: run,
            signature: 7,
            count: 1,
            at: now,
            message: "boom".to_owned(),
            class: None,
            broke: Some(true),
        };
        self.db.record_failures(run, &[failure]).await.unwrap();
        self.db.record_flips(run, &run.to_string(), "", None, &[number], now).await.unwrap();
    }

    /// A sweep with a snapshot, a job, a verdict and a report.
    async fn sweep(&mut self) {
        let (now, id) = (self.now(), SweepId::new());
        let made = |what: &str| format!("{what} of {id}");
        let snapshot = self.blobs.put(made("snapshot")).await.unwrap();
        let context = self.blobs.put_json(&serde_json::json!({ "snapshot": snapshot })).await.unwrap();
        let (shown, not_shown) =
            (self.blobs.put(made("shown")).await.unwrap(), self.blobs.put(made("not shown")).await.unwrap());
        let report = serde_json::json!({ "output": shown, "id": id.to_string() });
        let report = self.blobs.put_json(&report).await.unwrap();
        self.db
            .create_sweep(&NewSweep {
                id,
                project: PROJECT.to_owned(),
                revision: None,
                question: "{}".to_owned(),
                context: context.clone(),
                class: Class::Bulk,
                seed: 1,
                source: "/src".to_owned(),
                created_at: now,
            })
            .await
            .unwrap();
        let job = JobId::derive(id, "0");
        let spec = Payload::Inline(flakefarm_shared::blobs::encode(&"spec"));
        let new = NewJob { id: job, key: "0".to_owned(), class: Class::Bulk, spec, attempts: 1 };
        self.db.insert_jobs(id, &[new], now).await.unwrap();
        // What a job reports travels inside while it is small, packed.
        let outputs = flakefarm_shared::blobs::encode(&[&not_shown]);
        let settlement = Settlement::Done { report: Payload::Inline(outputs) };
        self.db.settle_job(job, &settlement, now).await.unwrap();
        let verdict = VerdictRow {
            project: PROJECT.to_owned(),
            test: self.tests[0].clone(),
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
        self.db.record_verdicts(id, &[verdict]).await.unwrap();
        self.db.finish_sweep(id, &SweepState::Answered, now, Some(&report)).await.unwrap();
        self.reports.push((report, shown));
        self.artifacts.extend([snapshot, context, not_shown]);
        self.sweeps.push(id);
    }

    async fn garbage(&self, doing: Doing) -> Garbage {
        let keep = HistoryRetention::default();
        garbage::collect(&self.db, &self.blobs, &keep, self.now(), doing, &Digest::of(b"marker"))
            .await
            .unwrap()
    }

    /// Rows and blobs that grow with time where nobody collects them.
    async fn sizes(&self) -> [u64; 6] {
        let points = self.samples.points(PROJECT, &self.tests[0], 0, i64::MAX).await.unwrap().len() as u64;
        [
            points,
            self.db.count_packs_before(PackSpan::Hours, i64::MAX).await.unwrap(),
            self.db.count_packs_before(PackSpan::Days, i64::MAX).await.unwrap(),
            self.db.count_days_before(i64::MAX).await.unwrap(),
            self.db.count_old_evidence(i64::MAX).await.unwrap(),
            self.db.count_old_jobs(i64::MAX).await.unwrap(),
        ]
    }

    async fn all_there(&self, digests: impl IntoIterator<Item = &Digest>) -> bool {
        for digest in digests {
            if !self.blobs.contains(digest).await.unwrap() {
                return false;
            }
        }
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_year_sizes_are_flat_and_verdicts_have_their_evidence() {
    let directory = tempfile::tempdir().unwrap();
    let mut year = Year::begin(directory.path()).await;
    let first = codec::day_of(year.now()) + 2;
    let in_flight = year.blobs.put("about to be submitted").await.unwrap();
    let mut months = Vec::new();
    for day in first..first + DAYS {
        year.clock.store(codec::day_start(day) + 9 * 3_600_000_000, Ordering::Relaxed);
        year.run().await;
        if (day - first) % 10 == 0 {
            year.sweep().await;
        }
        if day == first + 1 {
            year.db.lease_blob(&in_flight, year.now() + DAY).await.unwrap();
            assert!(year.garbage(Doing::Removing).await.young_blobs >= 1);
            assert!(year.all_there([&in_flight]).await, "somebody is about to refer to it");
        }
        collect_day(&year.db, &year.samples, PROJECT, day, year.now()).await.unwrap();
        if (day - first) % 30 == 29 {
            let looked = year.garbage(Doing::Looking).await;
            let removed = year.garbage(Doing::Removing).await;
            assert_eq!(looked, removed, "what is said is what is done");
            months.push(year.sizes().await);
        }
    }
    // Points, hours and jobs are flat after 14 and 90 days, days and evidence after 400 and what a month takes to go.
    let last = months.len() - 1;
    for month in &months[4..] {
        assert_eq!((month[0], month[1], month[5]), (months[4][0], months[4][1], months[4][5]), "{months:?}");
    }
    assert!((14..=15).contains(&months[4][0]), "{months:?}");
    assert!((90..=91).contains(&(months[4][1] / TESTS as u64)), "{months:?}");
    let [_, _, packs, days, evidence, _] = months[last];
    assert!(packs / TESTS as u64 <= 15 && days <= 432 && evidence <= 3 * 432, "{months:?}");
    assert!(months[last - 1][3] <= 432, "{months:?}");
    // What was in flight and never arrived is gone, as are the artifacts of the first sweeps.
    assert!(!year.all_there([&in_flight]).await);
    let old = year.artifacts.len() - 3 * 10;
    for (place, artifact) in
        year.artifacts.iter().enumerate().filter(|(place, _)| *place < old - 6 || *place > old)
    {
        assert_eq!(
            year.all_there([artifact]).await,
            place > old,
            "artifact {place} of {}",
            year.artifacts.len()
        );
    }
    // No verdict without its evidence.
    for ((report, shown), sweep) in year.reports.iter().zip(&year.sweeps) {
        assert!(year.all_there([report, shown]).await, "{sweep}");
        assert_eq!(year.db.verdicts(*sweep).await.unwrap().len(), 1);
        assert_eq!(year.db.sweep(*sweep).await.unwrap().unwrap().report.as_ref(), Some(report));
    }
    // The year still answers, from sums alone.
    let window = Window::last(365, year.now());
    let history =
        questions::test_history(&year.db, None, PROJECT, &year.tests[0], window, Confidence::DEFAULT).await;
    assert_eq!(history.unwrap().unwrap().classes[0].summary.runs, 365);
    year.db.close().await;
}
