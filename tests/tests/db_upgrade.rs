//! Upgrades of the store: a database as version 0.1.0 left it (schema 2), filled with rows of every kind,
//! is opened by this program. Nothing is lost, and what was found becomes history.
#![expect(clippy::unwrap_used, reason = "in a test, a failed step is the failure")]

use flakefarm_coordinator::db::{Db, JobState, Settlement, SweepState};
use flakefarm_shared::{JobId, RunOrigin, SweepId, TestId, TreatmentClass};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqlSafeStr, SqliteConnection};
use uuid::Uuid;

const OLD_SQLITE: [(i64, &str, &str); 2] = [
    (1, "first", include_str!("../../coordinator/migrations/sqlite/0001_first.sql")),
    (2, "fingerprints", include_str!("../../coordinator/migrations/sqlite/0002_fingerprints.sql")),
];
const OLD_POSTGRES: [(i64, &str, &str); 2] = [
    (1, "first", include_str!("../../coordinator/migrations/postgres/0001_first.sql")),
    (2, "fingerprints", include_str!("../../coordinator/migrations/postgres/0002_fingerprints.sql")),
];

fn old(steps: [(i64, &'static str, &'static str); 2]) -> Migrator {
    let migrations = steps.map(|(version, name, text)| {
        Migration::new(version, name.into(), MigrationType::Simple, text.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.to_vec())
}

/// Sweeps of every kind and state, by number: id, project, question, state.
const SWEEPS: [(u128, &str, &str, &str); 7] = [
    (1, "shop", r#"{"kind":"detect","sandbox":"container"}"#, "answered"),
    (2, "shop", r#"{"kind":"detect","sandbox":"process"}"#, "answered"),
    (3, "shop", r#"{"kind":{"diagnose":{"tests":["t"]}},"sandbox":"nested"}"#, "answered"),
    (4, "shop", r#"{"kind":{"bisect":{"test":"t"}}}"#, "cancelled"),
    (5, "other", r#"{"kind":"detect","sandbox":"forked"}"#, "running"),
    (6, "other", r#"{"kind":"detect"}"#, "interrupted"),
    (7, "other", r#"{"kind":"detect"}"#, "failed"),
];

/// The rows as statements; `id` spells a UUID in the dialect, `bytes` a byte string.
fn rows(id: impl Fn(u128) -> String, bytes: impl Fn(&str) -> String) -> Vec<String> {
    let digest = "a".repeat(64);
    let mut statements = Vec::new();
    for (number, project, question, state) in SWEEPS {
        let finished = if state == "running" { "NULL".to_owned() } else { (number + 100).to_string() };
        let refusal = if state == "failed" { r#"'{"message":"no","log":"","hint":null}'"# } else { "NULL" };
        statements.push(format!(
            "INSERT INTO sweeps (id, project, revision, question, context, class, seed, source, created_at, state,
                                 refusal, listing, report, finished_at)
             VALUES ({}, '{project}', 'r{number}', '{question}', '{digest}', 'bulk', {number}, '/src', {number},
                     '{state}', {refusal}, '{digest}', NULL, {finished})",
            id(number)
        ));
    }
    for (number, subject, attempts) in [(1, "01", 59), (1, "02", 59), (2, "01", 9), (6, "03", 5)] {
        let project = if number == 6 { "other" } else { "shop" };
        statements.push(format!(
            "INSERT INTO verdicts (sweep, subject, project, test, verdict, attempts, failures, estimate, lower,
                                   upper, score, p50_ms, finished_at, fingerprint)
             VALUES ({}, {}, '{project}', 't{subject}', 'flaky', {attempts}, 1, 0.1, 0.0, 0.2, 0.5, 12.5,
                     {}, '{digest}')",
            id(number),
            bytes(subject),
            number + 100
        ));
    }
    let settled = r#"'done', '{"done":{"report":"REPORT"}}', 9"#;
    for (number, state, rest) in [
        (11, "pending", "NULL, NULL, NULL, NULL, NULL"),
        (12, "queued", "3, 4, NULL, NULL, NULL"),
        (13, "settled", &format!("NULL, NULL, {settled}")),
    ] {
        statements.push(format!(
            "INSERT INTO jobs (id, sweep, ordinal, job_key, class, spec, attempts, created_at, state, available_at,
                               publications, queued_at, last_news, ending, settlement, settled_at)
             VALUES ({}, {}, {number}, 'k{number}', 'bulk', '{digest}', 20, 2, '{state}', 2, 1, {})",
            id(number),
            id(5),
            rest.replace("REPORT", &digest)
        ));
    }
    statements.push(
        "INSERT INTO workers (id, version, slots, seen_at, draining, jobs) VALUES ('w', '0.1.0', 4, 7, 0, 1)"
            .to_owned(),
    );
    statements.push(
        "INSERT INTO tokens (id, kind, hash, label, created_at) VALUES ('k', 'admin', 'h', 'label', 8)"
            .to_owned(),
    );
    statements
}

async fn nothing_is_lost(url: &str) {
    // Several at once, as when a farm's coordinators start together after the upgrade.
    let openings = (0..4).map(|_| Db::open(url));
    let mut stores: Vec<Db> =
        futures::future::join_all(openings).await.into_iter().map(Result::unwrap).collect();
    let db = stores.pop().unwrap();

    let sweeps = db.sweeps(100).await.unwrap();
    assert_eq!(sweeps.len(), SWEEPS.len());
    for ((number, project, question, state), row) in SWEEPS.iter().zip(sweeps.iter().rev()) {
        assert_eq!(row.id, SweepId(Uuid::from_u128(*number)));
        assert_eq!((&row.project[..], &row.question[..], row.state.word()), (*project, *question, *state));
        assert_eq!(row.seed, *number as u64);
    }
    let jobs = db.jobs(SweepId(Uuid::from_u128(5))).await.unwrap();
    assert_eq!(jobs.iter().map(|job| job.key.as_str()).collect::<Vec<_>>(), ["k11", "k12", "k13"]);
    assert!(matches!(jobs[0].state, JobState::Pending { .. }));
    assert!(matches!(jobs[1].state, JobState::Queued { publication: 1, last_news: 4, .. }));
    assert!(matches!(jobs[2].state, JobState::Settled { settlement: Settlement::Done { .. }, at: 9 }));
    assert_eq!(db.workers().await.unwrap().len(), 1);
    assert_eq!(db.tokens().await.unwrap()[0].kind, "admin");

    let run = async |number| db.run(Uuid::from_u128(number)).await.unwrap().unwrap();
    let mut kinds = Vec::new();
    for (number, ..) in SWEEPS {
        let run = run(number).await;
        assert_eq!(run.revision, Some(format!("r{number}")));
        kinds.push((run.origin, run.class, run.level.unwrap_or_default()));
    }
    let kinds: Vec<(RunOrigin, TreatmentClass, &str)> =
        kinds.iter().map(|(origin, class, level)| (*origin, *class, level.as_str())).collect();
    assert_eq!(
        kinds,
        [
            (RunOrigin::Sweep, TreatmentClass::Plain, "container"),
            (RunOrigin::Sweep, TreatmentClass::Unisolated, "process"),
            (RunOrigin::Diagnosis, TreatmentClass::Diagnosed, "nested"),
            (RunOrigin::Bisection, TreatmentClass::Bisected, "container"),
            (RunOrigin::Sweep, TreatmentClass::Unknown, "forked"),
            (RunOrigin::Sweep, TreatmentClass::Plain, "container"),
            (RunOrigin::Sweep, TreatmentClass::Unknown, "container"),
        ]
    );
    let projects: Vec<String> = db.projects().await.unwrap().into_iter().map(|row| row.name).collect();
    assert_eq!(projects, ["other", "shop"]);
    let tests = db.tests("shop").await.unwrap();
    let seen: Vec<_> = tests.iter().map(|row| (row.test.as_str(), row.first_seen, row.last_seen)).collect();
    assert_eq!(seen, [("t01", 101, 102), ("t02", 101, 101)]);
    // What a planner reads of it is what it read before, but for runs that were not isolated.
    let past = db.past_runs("shop", TreatmentClass::Plain, i64::MAX, 45).await.unwrap();
    assert_eq!(past.iter().map(|run| run.attempts).collect::<Vec<_>>(), [59, 59]);
    assert!(past.iter().all(|run| run.fingerprint.is_some()));
    assert_eq!(db.past_runs("shop", TreatmentClass::Unisolated, i64::MAX, 45).await.unwrap().len(), 1);

    // And words that the old schema did not know can be written, without another rebuild.
    db.resume_sweep(SweepId(Uuid::from_u128(6))).await.unwrap();
    db.settle_job(JobId(Uuid::from_u128(11)), &Settlement::Cancelled, 10).await.unwrap();
    let sweep = SweepId(Uuid::from_u128(5));
    db.finish_sweep(sweep, &SweepState::Answered, 11, None).await.unwrap();
    assert_eq!(db.verdicts(SweepId(Uuid::from_u128(1))).await.unwrap()[0].test, TestId::from("t01"));
    db.close().await;
    for db in stores {
        db.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_of_version_0_1_is_brought_up_to_date() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("farm.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    old(OLD_SQLITE).run_direct(None, &mut connection, false).await.unwrap();
    for statement in rows(|n| format!("x'{}'", Uuid::from_u128(n).simple()), |hex| format!("x'{hex}'")) {
        connection.execute(AssertSqlSafe(statement)).await.unwrap();
    }
    connection.close().await.unwrap();
    nothing_is_lost(&format!("sqlite:{}", path.display())).await;

    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let strays: Vec<(String, i64, String, i64)> =
        sqlx::query_as("PRAGMA foreign_key_check").fetch_all(&mut connection).await.unwrap();
    assert_eq!(strays, []);
    let words: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND upper(sql) LIKE '% IN (''%'",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert_eq!(words, 0, "no table lists words that somebody may have to widen");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_of_version_0_1_is_brought_up_to_date() {
    let Ok(server) = std::env::var("FLAKEFARM_TEST_PG_URL") else {
        assert!(
            std::env::var("FLAKEFARM_TEST_SKIP_SERVICES").is_ok_and(|value| value == "1"),
            "FLAKEFARM_TEST_PG_URL is not set: `make test` starts a PostgreSQL, \
             FLAKEFARM_TEST_SKIP_SERVICES=1 leaves these tests out"
        );
        eprintln!("SKIPPED: FLAKEFARM_TEST_SKIP_SERVICES=1, the upgrade was not tried on PostgreSQL");
        return;
    };
    let schema = format!("test_{}", JobId::new().0.simple());
    let mut admin = PgConnection::connect(&server).await.expect("FLAKEFARM_TEST_PG_URL can be reached");
    admin.execute(AssertSqlSafe(format!("CREATE SCHEMA {schema}"))).await.unwrap();
    let separator = if server.contains('?') { '&' } else { '?' };
    let url = format!("{server}{separator}options=-csearch_path%3D{schema}");
    let checked = tokio::spawn({
        let url = url.clone();
        async move {
            let mut connection = PgConnection::connect(&url).await.unwrap();
            old(OLD_POSTGRES).run_direct(None, &mut connection, false).await.unwrap();
            for statement in rows(|n| format!("'{}'", Uuid::from_u128(n)), |hex| format!("'\\x{hex}'")) {
                connection.execute(AssertSqlSafe(statement)).await.unwrap();
            }
            nothing_is_lost(&url).await;
        }
    })
    .await;
    admin.execute(AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"))).await.unwrap();
    if let Err(failed) = checked {
        std::panic::resume_unwind(failed.into_panic());
    }
}
