//! Every adapter of the samples port against the laws of `contract::samples`: SQLite in a
//! temporary directory, and Redis at `FLAKEFARM_TEST_REDIS_URL`, each test under a key prefix of
//! its own that it removes. What needs to stop or starve a server starts one of its own.
#![expect(clippy::unwrap_used, reason = "in a test, a failed step is the failure")]

use flakefarm_coordinator::stores::sqlite_samples::SqliteSamples;
use flakefarm_shared::samples::{
    Chunk, Phases, Point, RedisSamples, Retention, SampleError, SampleStore, codec,
};
use flakefarm_shared::{JobId, TestId, TreatmentClass};
use flakefarm_tests::contract::samples as laws;
use flakefarm_tests::eventually::eventually;
use flakefarm_tests::harness::service;
use futures::FutureExt as _;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::{Child, Command};

macro_rules! both_adapters {
    ($($law:ident with $retention:expr;)*) => {
        mod sqlite {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $law() {
                on_sqlite($retention, laws::$law).await;
            })*
        }
        mod redis_server {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $law() {
                on_redis($retention, laws::$law).await;
            })*
        }
    };
}

both_adapters! {
    appended_points_are_read_back with Retention::default();
    ranges_include_their_start_and_exclude_their_end with Retention::default();
    a_duplicate_append_changes_nothing with Retention::default();
    racing_duplicates_are_stored_once with Retention::default();
    many_chunks_are_answered_in_order with Retention::default();
    arrival_order_does_not_matter with Retention::default();
    late_samples_go_by_their_own_day with Retention::default();
    points_name_their_run_and_class with Retention::default();
    a_day_is_read_for_many_tests_at_once with Retention::default();
    any_text_names_a_project_and_a_test with Retention::default();
    an_impossible_chunk_is_refused with Retention::default();
    expired_points_are_never_read with laws::SHORT_RETENTION;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("samples.db");
    let store = SqliteSamples::open(&path, Retention::default()).await.unwrap();
    let kept = laws::before_restart(&store).await;
    drop(store);
    let store = SqliteSamples::open(&path, Retention::default()).await.unwrap();
    laws::after_restart(&store, kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_found_again_after_it_was_killed() {
    let mut server = OwnRedis::start().await;
    let store = RedisSamples::open(&server.url(), Retention::default(), None).unwrap();
    let kept = laws::before_restart(&store).await;
    server.kill().await;
    let answer = store.append(std::slice::from_ref(&kept)).await;
    assert!(matches!(answer, Err(SampleError::Unreachable(_))), "{answer:?}");
    server.run().await;
    laws::after_restart(&store, kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_between_two_appends_goes_unnoticed() {
    let mut server = OwnRedis::start().await;
    let store = RedisSamples::open(&server.url(), Retention::default(), None).unwrap();
    let kept = laws::before_restart(&store).await;
    server.kill().await;
    server.run().await;
    // The connection is stale and the script forgotten, and the first call succeeds all the same.
    let answer = store.append(std::slice::from_ref(&kept)).await.unwrap();
    assert_eq!(answer, [flakefarm_shared::samples::Appended::Duplicate]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_opened_before_its_server_works_once_it_is_there() {
    let mut server = OwnRedis::start().await;
    server.kill().await;
    let store = RedisSamples::open(&server.url(), Retention::default(), None).unwrap();
    let answer = store.check().await;
    assert!(matches!(answer, Err(SampleError::Unreachable(_))), "{answer:?}");
    server.run().await;
    laws::appended_points_are_read_back(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_says_so_and_stores_nothing_of_the_chunk() {
    let server = OwnRedis::start().await;
    let store = RedisSamples::open(&server.url(), Retention::default(), None).unwrap();
    let mut kept = laws::before_restart(&store).await;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    kept.chunk = 1;
    let answer = store.append(std::slice::from_ref(&kept)).await;
    assert!(matches!(answer, Err(SampleError::Full(_))), "{answer:?}");
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    kept.chunk = 0;
    laws::after_restart(&store, kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_another_type_are_damage() {
    let server = OwnRedis::start().await;
    let store = RedisSamples::open(&server.url(), Retention::default(), None).unwrap();
    let kept = laws::before_restart(&store).await;
    let mut connection = server.connection().await.unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    assert_eq!(keys.len(), 1, "one pack: {keys:?}");
    for key in &keys {
        server.command(&["SET", key, "nonsense"]).await;
    }
    let answer = store.append(std::slice::from_ref(&kept)).await;
    assert!(matches!(answer, Err(SampleError::Damaged(_))), "{answer:?}");
    let answer = store.points(&kept.project, &kept.test, kept.points[0].at, kept.points[0].at + 1).await;
    assert!(matches!(answer, Err(SampleError::Damaged(_))), "{answer:?}");
}

/// At one sample per chunk and 20 per test and day, the worst that a farm does, Redis keeps at most 40
/// bytes per sample by its own count; at 1,000 per test and day, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_sample_costs_at_most_forty_bytes() {
    let server = OwnRedis::start().await;
    server.command(&["CONFIG", "SET", "appendonly", "no"]).await;
    let store = RedisSamples::open(&server.url(), Retention::default(), None).unwrap();
    for (tests, samples) in [(2_000u32, 20u32), (40, 1_000)] {
        server.command(&["FLUSHALL"]).await;
        for sample in 0..samples {
            let chunks: Vec<Chunk> = (0..tests)
                .flat_map(|test| {
                    let phases = Some(Phases { setup_us: 1_234, teardown_us: 567 });
                    let at = codec::day_start(20_000) + i64::from(sample) * 60_000_000;
                    let point = Point { phases, ..Point::passed(at, 123_456) };
                    let (run, job) = (uuid::Uuid::from_u128(sample.into()), JobId::new());
                    codec::chunks(
                        "p",
                        &TestId(format!("t{test}")),
                        run,
                        job,
                        &[(TreatmentClass::Plain, point)],
                    )
                })
                .collect();
            store.append(&chunks).await.unwrap();
        }
        let mut connection = server.connection().await.unwrap();
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
        let mut bytes = 0u64;
        for key in &keys {
            let usage: u64 =
                redis::cmd("MEMORY").arg("USAGE").arg(key).query_async(&mut connection).await.unwrap();
            bytes += usage;
        }
        let per_sample = bytes as f64 / f64::from(tests * samples);
        eprintln!("{tests} tests, {samples} samples each: {per_sample:.1} bytes per sample");
        assert!(
            per_sample <= 40.0,
            "{tests} tests, {samples} samples each: {per_sample:.1} bytes per sample"
        );
    }
}

/// What version 0.1 wrote to Redis is read until it expires.
#[tokio::test(flavor = "multi_thread")]
async fn points_of_layout_1_are_still_read() {
    let server = OwnRedis::start().await;
    let store = RedisSamples::open(&server.url(), Retention::default(), None).unwrap();
    let series = hex::encode(codec::series("p", &TestId::from("t")));
    let mut connection = server.connection().await.unwrap();
    let () = redis::cmd("HSET")
        .arg(format!("ff1:{{{series}}}:r:20241004"))
        .arg(&[0u8; 18][..])
        .arg(hex::decode("040302010000443322110107bbaaddcc").unwrap())
        .query_async(&mut connection)
        .await
        .unwrap();
    let read = store.points("p", &TestId::from("t"), 0, i64::MAX).await.unwrap();
    assert_eq!((read.len(), read[0].class, read[0].run), (1, TreatmentClass::Unknown, None));
    assert_eq!(read[0].point.wall_us, 0x1122_3344);
    assert_eq!(store.points_of_day("p", &[TestId::from("t")], 20_000).await.unwrap(), [read]);
}

async fn on_sqlite(retention: Retention, law: impl AsyncFnOnce(&dyn SampleStore)) {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteSamples::open(&directory.path().join("samples.db"), retention).await.unwrap();
    law(&store).await;
}

async fn on_redis(retention: Retention, law: impl AsyncFnOnce(&dyn SampleStore)) {
    let url = service("FLAKEFARM_TEST_REDIS_URL");
    let prefix = format!("test-{}:", uuid::Uuid::now_v7());
    let store = RedisSamples::open(&url, retention, Some(&prefix)).unwrap();
    let outcome = AssertUnwindSafe(law(&store)).catch_unwind().await;
    remove_keys(&url, &prefix).await;
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

async fn remove_keys(url: &str, prefix: &str) {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut cursor = 0u64;
    loop {
        let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(format!("{prefix}*"))
            .arg("COUNT")
            .arg(1_000)
            .query_async(&mut connection)
            .await
            .unwrap();
        if !keys.is_empty() {
            let () = redis::cmd("UNLINK").arg(keys).query_async(&mut connection).await.unwrap();
        }
        if next == 0 {
            return;
        }
        cursor = next;
    }
}

/// A Redis of the test's own, on a socket in a temporary directory, that keeps its data when killed.
struct OwnRedis {
    directory: TempDir,
    process: Option<Child>,
}

impl OwnRedis {
    async fn start() -> Self {
        let mut server = Self { directory: tempfile::tempdir().unwrap(), process: None };
        server.run().await;
        server
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    async fn run(&mut self) {
        let process = Command::new("redis-server")
            .args([
                "--port",
                "0",
                "--save",
                "",
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--unixsocket",
            ])
            .arg(self.socket())
            .arg("--dir")
            .arg(self.directory.path())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("redis-server is installed");
        self.process = Some(process);
        eventually("redis-server answers", Duration::from_secs(20), async || {
            let mut connection = self.connection().await.map_err(|error| error.to_string())?;
            let answer: Result<String, _> = redis::cmd("PING").query_async(&mut connection).await;
            answer.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }

    /// As a power cut would: without a farewell.
    async fn kill(&mut self) {
        let mut process = self.process.take().expect("the server runs");
        process.kill().await.unwrap();
    }

    async fn connection(&self) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
        redis::Client::open(self.url())?.get_multiplexed_async_connection().await
    }

    async fn command(&self, words: &[&str]) {
        let mut connection = self.connection().await.unwrap();
        let () = redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await.unwrap();
    }
}
