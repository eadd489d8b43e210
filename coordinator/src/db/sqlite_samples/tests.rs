//! Expiry, and files that are not ours.

use super::*;
use flakefarm_shared::ids::JobId;
use flakefarm_shared::samples::PointOutcome;
use std::sync::atomic::{AtomicI64, Ordering};

const DAY: Duration = Duration::from_secs(86_400);

fn chunk(job: JobId, at: UnixMicros) -> Chunk {
    let point = Point { at, wall_us: 10, outcome: PointOutcome::Pass, concurrency: 1, worker: 1, run: 1 };
    Chunk { project: "p".into(), test: "t".into(), job, chunk: 0, points: vec![point] }
}

#[tokio::test]
async fn each_layer_expires_at_its_own_time_and_is_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(codec::day_start(20_000)));
    let clock = Arc::clone(&now);
    let retention = Retention { raw: DAY, hourly: DAY * 2, daily: DAY * 3 };
    let store = SqliteSamples::open_with_clock(&directory.path().join("samples.db"), retention, move || {
        clock.load(Ordering::SeqCst)
    })
    .await
    .unwrap();
    let start = codec::day_start(20_000);
    let chunk = chunk(JobId::new(), start);
    store.append(std::slice::from_ref(&chunk)).await.unwrap();

    let count = async || {
        let test = TestId::from("t");
        let points = store.points("p", &test, 0, i64::MAX).await.unwrap().len();
        let hours = store.rollups("p", &test, Span::Hour, 0, i64::MAX).await.unwrap().len();
        let days = store.rollups("p", &test, Span::Day, 0, i64::MAX).await.unwrap().len();
        (points, hours, days)
    };
    let day = i64::try_from(DAY.as_micros()).unwrap();
    for (passed, expect) in [
        (day - 1, (1, 1, 1)),
        (day, (0, 1, 1)),
        (2 * day - 1, (0, 1, 1)),
        (2 * day, (0, 0, 1)),
        (3 * day, (0, 0, 0)),
    ] {
        now.store(start + passed, Ordering::SeqCst);
        assert_eq!(count().await, expect, "after {passed} us");
    }
    store.check().await.unwrap();
    let rows: i64 = sqlx::query_scalar("SELECT (SELECT count(*) FROM chunk) + (SELECT count(*) FROM rollup)")
        .fetch_one(&store.readers)
        .await
        .unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn a_file_of_a_newer_layout_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("samples.db");
    let store = SqliteSamples::open(&path, Retention::default()).await.unwrap();
    sqlx::raw_sql("PRAGMA user_version = 2").execute(&store.writer).await.unwrap();
    drop(store);
    let opened = SqliteSamples::open(&path, Retention::default()).await;
    assert!(matches!(opened, Err(SampleError::Refused(_))), "{opened:?}");
}

#[tokio::test]
async fn a_file_of_something_else_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("samples.db");
    std::fs::write(&path, [b'x'; 8_192]).unwrap();
    let opened = SqliteSamples::open(&path, Retention::default()).await;
    assert!(matches!(opened, Err(SampleError::Damaged(_))), "{opened:?}");
}
