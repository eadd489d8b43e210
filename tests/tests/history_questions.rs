//! What history answers, from reports of CI whose truth is known, summed up as a farm does: on SQLite and on
//! a real PostgreSQL.
#![expect(clippy::unwrap_used, reason = "in a test, a failed step is the failure")]

use flakefarm_coordinator::calendar::date_of;
use flakefarm_coordinator::db::Db;
use flakefarm_coordinator::history::collect::{collect_day, mend_columns};
use flakefarm_coordinator::history::ingest::ci::CiJob;
use flakefarm_coordinator::history::ingest::{SUMMED_ANYWAY, SentReport, ingest};
use flakefarm_coordinator::history::linking;
use flakefarm_coordinator::history::moves::Move;
use flakefarm_coordinator::history::questions::{self, Changed, Window};
use flakefarm_coordinator::plan::Confidence;
use flakefarm_coordinator::stores::sqlite_samples::SqliteSamples;
use flakefarm_shared::samples::{Retention, codec};
use flakefarm_shared::{TestId, UnixMicros, now_micros};
use std::fmt::Write as _;

const HOUR: UnixMicros = 3_600_000_000;
const DAYS: i64 = 13;

/// One case: name, failed, milliseconds.
type Case = (&'static str, bool, u32);

/// What ran on a day, in the given run of it (of four) and attempt at the job.
fn cases(day: i64, run: i64, attempt: u32) -> Vec<Case> {
    // From the eighth day on it takes twice as long, from its second run on.
    let slow = if day > 8 || day == 8 && run >= 2 { 400 } else { 200 };
    let first = attempt == 1;
    let mut cases = vec![
        ("test_steady", false, 100),
        ("test_slow", false, slow + (day * 4 + run) as u32 % 5),
        // Flaky since the ninth day: its first attempt fails, the job is started again.
        ("test_new", day >= 9 && run == 1 && first, 100),
        // Red for two days, green since.
        ("test_mended", day == 1 || day == 2, 100),
        // Together, once a day, on the first four days.
        ("test_one", day < 4 && run == 3, 100),
        ("test_other", day < 4 && run == 3, 100),
    ];
    for name in ["test_a", "test_b", "test_c", "test_d", "test_e", "test_f"] {
        cases.push((name, false, 50));
    }
    cases
}

fn report(at: UnixMicros, cases: &[Case]) -> String {
    let at = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1_000).unwrap();
    let at = at.format(&time::format_description::well_known::Rfc3339).unwrap();
    let mut text = format!("<testsuite name=\"pytest\" timestamp=\"{at}\">");
    for (name, failed, ms) in cases {
        let inner = if *failed { "<failure message=\"boom\"/>" } else { "" };
        write!(
            text,
            "<testcase classname=\"tests.test_a\" name=\"{name}\" time=\"{}\">{inner}</testcase>",
            f64::from(*ms) / 1e3
        )
        .unwrap();
    }
    text + "</testsuite>"
}

fn id(name: &str) -> TestId {
    TestId(format!("tests/test_a.py::{name}"))
}

async fn fill(db: &Db, samples: &SqliteSamples, directory: &std::path::Path, today: i64) {
    for day in 0..DAYS {
        for run in 0..4 {
            let attempts = if day >= 9 && run == 1 { 2 } else { 1 };
            for attempt in 1..=attempts {
                let at = codec::day_start(today - DAYS + day) + run * 4 * HOUR + i64::from(attempt) * HOUR;
                let path = directory.join("report.xml");
                std::fs::write(&path, report(at, &cases(day, run, attempt))).unwrap();
                let report = SentReport {
                    project: "shop".to_owned(),
                    ci: CiJob {
                        revision: Some(format!("r{day}x{run}")),
                        branch: Some(if run == 1 { "topic" } else { "main" }.to_owned()),
                        attempt: Some(attempt),
                        ..CiJob::default()
                    },
                    variant: None,
                    name: "report.xml".to_owned(),
                    path,
                };
                ingest(db, samples, &report, now_micros()).await.unwrap();
            }
        }
    }
}

async fn answers_are_those_of_the_truth(url: &str) {
    let directory = tempfile::tempdir().unwrap();
    let db = Db::open(url).await.unwrap();
    let samples =
        SqliteSamples::open(&directory.path().join("samples.db"), Retention::default()).await.unwrap();
    let now = now_micros();
    let today = codec::day_of(now);
    fill(&db, &samples, directory.path(), today).await;
    let late = db.late_days("shop").await.unwrap();
    assert_eq!(
        late,
        (today - DAYS..today - SUMMED_ANYWAY).collect::<Vec<_>>(),
        "reports told of days that are over"
    );
    let summed_up = now_micros();
    for day in today - DAYS..=today {
        collect_day(&db, &samples, "shop", day, summed_up).await.unwrap();
        // Once more changes nothing.
        collect_day(&db, &samples, "shop", day, summed_up).await.unwrap();
    }
    assert_eq!(db.late_days("shop").await.unwrap(), Vec::<i64>::new());
    mend_columns(&db, "shop", now).await.unwrap();
    let window = Window::last(30, now);
    let of_test = async |name: &str| {
        let samples: Option<&dyn flakefarm_shared::samples::SampleStore> = Some(&samples);
        questions::test_history(&db, samples, "shop", &id(name), window, Confidence::DEFAULT)
            .await
            .unwrap()
            .unwrap()
    };

    let slow = of_test("test_slow").await;
    let [change] = slow.classes[0].changes.as_slice() else { panic!("{:?}", slow.classes[0].changes) };
    let eighth = today - DAYS + 8;
    assert_eq!((change.what, change.date.clone()), (Changed::Duration, date_of(eighth).to_string()));
    assert_eq!(change.at, codec::day_start(eighth) + 9 * HOUR, "the third run of that day");
    assert_eq!(
        (change.after_revision.as_deref(), change.by_revision.as_deref()),
        (Some("r8x1"), Some("r8x2"))
    );
    assert!(
        (190.0..=215.0).contains(&change.before) && (390.0..=410.0).contains(&change.after),
        "{change:?}"
    );
    assert_eq!(slow.cost, None, "it never failed");

    let new = of_test("test_new").await;
    assert_eq!((new.flips.len(), new.flips_by_branch[0].branch.as_deref()), (4, Some("topic")));
    let cost = new.cost.unwrap();
    assert_eq!((cost.failed_pipelines, cost.reruns, cost.ci_runs, cost.retries), (4, 4, 56, 0));
    let [signature] = new.signatures.as_slice() else { panic!("{:?}", new.signatures) };
    assert_eq!((signature.count, signature.days.len(), signature.class.as_str()), (4, 4, "ci"));
    let ninth = date_of(today - DAYS + 9).to_string();
    assert_eq!(new.classes[0].first_failed.as_deref(), Some(ninth.as_str()));
    assert_eq!(of_test("test_steady").await.classes[0].changes, []);

    let ranking = questions::ranking(&db, "shop", window, None, 50).await.unwrap();
    assert_eq!((ranking.total, ranking.tests.len()), (12, 12));
    let first = &ranking.tests[0];
    assert_eq!(
        (first.test.as_str(), first.flips, first.moved),
        ("tests/test_a.py::test_new", 4, Some(Move::New))
    );
    assert_eq!(first.cost.unwrap().reruns, 4);
    let class = &first.classes[0];
    assert_eq!((class.runs, class.failures, class.p50_ms), (56, 4, Some(100.0)));
    let moved = questions::ranking(&db, "shop", window, Some(Move::New), 50).await.unwrap();
    assert_eq!((moved.total, moved.tests.len()), (1, 1));

    let trends = questions::trends(&db, "shop", window).await.unwrap();
    assert_eq!(trends.days.len(), DAYS as usize);
    assert_eq!((trends.days[0].runs, trends.days[0].failures, trends.days[0].tests), (48, 2, 12));
    assert_eq!((trends.week.new, trends.week.worse, trends.week.better), (1, 0, 0));
    assert_eq!(trends.week.gone, 1, "the one that was red for eight runs: {:?}", trends.week);
    let [cluster] = trends.clusters.as_slice() else { panic!("{:?}", trends.clusters) };
    assert_eq!(cluster.tests, [id("test_one").to_string(), id("test_other").to_string()]);
    assert_eq!((cluster.all_failed, cluster.any_failed), (4, 4));
    assert_eq!(trends.flips_by_branch[0].branch.as_deref(), Some("topic"));
    // The mended one took two days, the pair three and a half; the new one is open after three and a third.
    let recovery = &trends.recovery;
    assert_eq!((recovery.cases, recovery.open, recovery.mean_is_lower_bound), (4, 1, false));
    assert_eq!((recovery.p50_days, recovery.p90_days), (Some(3.5), Some(3.5)));
    assert!((recovery.mean_days.unwrap() - (2.0 + 0.75 * 1.5)).abs() < 1e-9, "{recovery:?}");
    assert_eq!(trends.runs.len(), 1);
    assert_eq!((trends.runs[0].runs, trends.runs[0].revisions), (56, 52));
    assert_eq!(questions::week(&db, "shop", now).await.unwrap(), trends.week);
    // They go over the wire as they are.
    let text = serde_json::to_string(&trends).unwrap();
    assert_eq!(serde_json::from_str::<questions::Trends>(&text).unwrap(), trends);

    // A sample store that was emptied: the sums answer, and the gap is said at once.
    assert_eq!(new.gaps, Vec::<String>::new());
    let emptied =
        SqliteSamples::open(&directory.path().join("empty.db"), Retention::default()).await.unwrap();
    let emptied: Option<&dyn flakefarm_shared::samples::SampleStore> = Some(&emptied);
    let name = id("test_new");
    let found = questions::test_history(&db, emptied, "shop", &name, window, Confidence::DEFAULT);
    let found = found.await.unwrap().unwrap();
    assert_eq!(found.classes, new.classes);
    let [gap] = found.gaps.as_slice() else { panic!("{:?}", found.gaps) };
    assert!(gap.contains("lost points of 10 runs"), "two days of four runs and a second attempt: {gap}");

    // Under another name it is the same test; what was said is taken back without a trace.
    let (one, other) = (id("test_one"), id("test_other"));
    linking::link(&db, "shop", (&one, &other), Some("moved"), now).await.unwrap();
    let linked = of_test("test_one").await;
    assert_eq!(linked.earlier_names, [other.to_string()]);
    let class = &linked.classes[0].summary;
    assert_eq!((class.runs, class.failures), (112, 8), "runs of both");
    assert_eq!((linked.signatures.len(), linked.signatures[0].count), (1, 8));
    assert_eq!(of_test("test_other").await.later_name, Some(one.to_string()));
    let both = questions::ranking(&db, "shop", window, None, 50).await.unwrap();
    assert_eq!((both.total, both.tests.len()), (11, 11));
    let ranked = both.tests.iter().find(|ranked| ranked.test == one.0).unwrap();
    assert_eq!((ranked.classes[0].runs, ranked.classes[0].failures), (112, 8));
    assert_eq!(ranked.classes[0].p50_ms, Some(100.0));
    let together = questions::trends(&db, "shop", window).await.unwrap();
    assert_eq!((together.clusters.len(), together.recovery.cases, together.days[0].tests), (0, 3, 11));
    assert_eq!((together.days[0].runs, together.days[0].failures), (48, 2));
    assert!(linking::link(&db, "shop", (&id("test_a"), &other), None, now).await.is_err());
    assert!(linking::unlink(&db, "shop", (&one, &other), now).await.unwrap());
    assert_eq!(questions::ranking(&db, "shop", window, None, 50).await.unwrap(), ranking);
    assert_eq!(questions::trends(&db, "shop", window).await.unwrap(), trends);
    let nobody = questions::trends(&db, "nobody", window).await.unwrap();
    assert_eq!((nobody.days.len(), nobody.recovery.cases), (0, 0));
    db.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_those_of_the_truth_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("farm.db").display());
    answers_are_those_of_the_truth(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_those_of_the_truth_on_postgres() {
    flakefarm_tests::harness::in_schema(answers_are_those_of_the_truth).await;
}
