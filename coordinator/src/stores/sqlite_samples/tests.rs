//! Expiry, and files that are not ours.

use super::*;
use flakefarm_shared::TreatmentClass;
use flakefarm_shared::ids::JobId;
use flakefarm_shared::samples::Point;
use std::sync::atomic::{AtomicI64, Ordering};

const DAY: Duration = Duration::from_secs(86_400);

fn chunk(job: JobId, at: UnixMicros) -> Chunk {
    Chunk {
        project: "p".into(),
        test: "t".into(),
        run: job.0,
        class: TreatmentClass::Plain,
        job,
        chunk: 0,
        points: vec![Point::passed(at, 10)],
    }
}

#[tokio::test]
async fn points_expire_at_their_time_and_are_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(codec::day_start(20_000)));
    let clock = Arc::clone(&now);
    let store = SqliteSamples::open_with_clock(
        &directory.path().join("samples.db"),
        Retention { points: DAY },
        move || clock.load(Ordering::SeqCst),
    )
    .await
    .unwrap();
    let start = codec::day_start(20_000);
    store.append(&[chunk(JobId::new(), start)]).await.unwrap();
    let day = i64::try_from(DAY.as_micros()).unwrap();
    for (passed, expect) in [(day - 1, 1), (day, 0)] {
        now.store(start + passed, Ordering::SeqCst);
        let tests = [TestId::from("t")];
        assert_eq!(
            store.points("p", &tests[0], 0, i64::MAX).await.unwrap().len(),
            expect,
            "after {passed} us"
        );
        assert_eq!(store.points_of_day("p", &tests, 20_000).await.unwrap()[0].len(), expect);
    }
    store.check().await.unwrap();
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM packs").fetch_one(&store.readers).await.unwrap();
    assert_eq!(rows, 0);
}

/// A new file with the tables of an earlier layout.
async fn made(path: &Path, layout: &'static str) -> SqlitePool {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    sqlx::raw_sql(layout).execute(&pool).await.unwrap();
    pool
}

/// As version 0.1 made it.
const LAYOUT_1: &str = "
    CREATE TABLE chunk (
        series INTEGER NOT NULL, day INTEGER NOT NULL, field BLOB NOT NULL CHECK (length(field) = 18),
        points BLOB NOT NULL, expires_at INTEGER NOT NULL, PRIMARY KEY (series, day, field)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX chunk_expiry ON chunk (expires_at);
    CREATE TABLE rollup (
        series INTEGER NOT NULL, span_hours INTEGER NOT NULL CHECK (span_hours IN (1, 24)),
        start INTEGER NOT NULL, packed BLOB NOT NULL CHECK (length(packed) = 32),
        expires_at INTEGER NOT NULL, PRIMARY KEY (series, span_hours, start)
    ) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 1;
";

#[tokio::test]
async fn a_file_of_layout_1_is_read_until_its_points_expire() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("samples.db");
    let old = made(&path, LAYOUT_1).await;
    sqlx::query("INSERT INTO chunk VALUES ($1, 20000, zeroblob(18), $2, $3)")
        .bind(series_number(codec::series("p", &TestId::from("t"))))
        .bind(hex::decode("040302010000443322110107bbaaddcc").unwrap())
        .bind(codec::day_start(20_014))
        .execute(&old)
        .await
        .unwrap();
    old.close().await;

    let open = async |day: i64| {
        let clock = move || codec::day_start(day);
        SqliteSamples::open_with_clock(&path, Retention::default(), clock).await.unwrap()
    };
    let store = open(20_001).await;
    store.append(&[chunk(JobId::new(), codec::day_start(20_001))]).await.unwrap();
    let points = store.points("p", &TestId::from("t"), 0, i64::MAX).await.unwrap();
    let classes: Vec<TreatmentClass> = points.iter().map(|stored| stored.class).collect();
    assert_eq!(classes, [TreatmentClass::Unknown, TreatmentClass::Plain]);
    assert_eq!(store.points_of_day("p", &[TestId::from("t")], 20_000).await.unwrap()[0], points[..1]);
    drop(store);
    let store = open(20_014).await;
    assert_eq!(store.points("p", &TestId::from("t"), 0, i64::MAX).await.unwrap().len(), 1);
    let tables: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sqlite_master WHERE name IN ('chunk', 'rollup')")
            .fetch_one(&store.readers)
            .await
            .unwrap();
    assert_eq!(tables, 0);
}

/// As it was before points lay in the order of days.
const LAYOUT_2: &str = "
    CREATE TABLE pack (
        series INTEGER NOT NULL, day INTEGER NOT NULL, name BLOB NOT NULL, packed BLOB NOT NULL,
        expires_at INTEGER NOT NULL, PRIMARY KEY (series, day, name)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX pack_expiry ON pack (expires_at);
    PRAGMA user_version = 2;
";

#[tokio::test]
async fn a_file_of_layout_2_is_rewritten_and_its_chunks_still_count_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("samples.db");
    let old = made(&path, LAYOUT_2).await;
    let chunks: Vec<Chunk> =
        (20_000..20_005).map(|day| chunk(JobId::new(), codec::day_start(day) + day)).collect();
    for chunk in &chunks {
        let prepared = codec::prepare(chunk).unwrap();
        sqlx::query("INSERT INTO pack VALUES ($1, $2, $3, $4, $5)")
            .bind(series_number(prepared.series))
            .bind(prepared.day)
            .bind(prepared.name.to_vec())
            .bind(prepared.packed.clone())
            .bind(codec::day_start(20_014))
            .execute(&old)
            .await
            .unwrap();
    }
    old.close().await;
    for _ in 0..2 {
        let clock = || codec::day_start(20_005);
        let store = SqliteSamples::open_with_clock(&path, Retention::default(), clock).await.unwrap();
        assert_eq!(store.append(&chunks[1..2]).await.unwrap(), [Appended::Duplicate]);
        let test = TestId::from("t");
        let count = async |from: i64, to: i64| store.points("p", &test, from, to).await.unwrap().len();
        assert_eq!(count(0, i64::MAX).await, 5);
        assert_eq!(count(codec::day_start(20_001), codec::day_start(20_003)).await, 2);
        assert_eq!(count(codec::day_start(20_005), i64::MAX).await, 0);
        assert_eq!(count(0, codec::day_start(20_000)).await, 0);
    }
}

/// Files only grow: what they have come to after the first windows is what they stay at.
#[tokio::test]
async fn a_file_does_not_grow_once_as_much_expires_as_comes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("samples.db");
    let now = Arc::new(AtomicI64::new(0));
    let clock = Arc::clone(&now);
    let store =
        SqliteSamples::open_with_clock(&path, Retention::default(), move || clock.load(Ordering::SeqCst));
    let store = store.await.unwrap();
    let mut pages = Vec::new();
    for day in 20_000..20_090 {
        let at = codec::day_start(day) + 1;
        now.store(at, Ordering::SeqCst);
        for _ in 0..4 {
            let job = JobId::new();
            let of = |test: u32| Chunk { test: format!("t{test}").as_str().into(), ..chunk(job, at) };
            store.append(&(0..200).map(of).collect::<Vec<Chunk>>()).await.unwrap();
        }
        let count: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&store.writer).await.unwrap();
        pages.push(count as f64);
    }
    let mean = |pages: &[f64]| pages.iter().sum::<f64>() / pages.len() as f64;
    let (first, last) = (mean(&pages[30..50]), mean(&pages[70..]));
    assert!(first > 100.0 && last < 1.01 * first, "{first} pages, then {last}");
}

#[tokio::test]
async fn a_file_of_a_newer_layout_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("samples.db");
    let store = SqliteSamples::open(&path, Retention::default()).await.unwrap();
    sqlx::raw_sql("PRAGMA user_version = 4").execute(&store.writer).await.unwrap();
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
