//! Runs the laws of the store on SQLite and on a real PostgreSQL, each in a database of its own.
//!
//! `FLAKEFARM_TEST_PG_URL` names a PostgreSQL in which schemas may be made;
//! `FLAKEFARM_TEST_PG_RESTART` is a shell command that restarts it.
#![expect(clippy::unwrap_used, reason = "in a test, a failed step is the failure")]

use flakefarm_coordinator::db::{Db, DbError};
use flakefarm_tests::contract::db as laws;
use flakefarm_tests::harness::{in_schema, service};
use sqlx::{Connection, Executor, PgConnection, SqliteConnection};
use tokio::sync::RwLock;

/// Held for writing by the test that restarts the server under everybody's feet.
static SERVER: RwLock<()> = RwLock::const_new(());

async fn on_sqlite(law: impl AsyncFnOnce(&str)) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("not yet there/ünï ?#% code.db");
    law(&format!("sqlite:{}", path.display())).await;
    assert!(path.exists(), "the file is where the address says");
}

async fn opened(url: &str, law: impl AsyncFnOnce(&Db)) {
    let db = Db::open(url).await.unwrap();
    law(&db).await;
    db.close().await;
}

macro_rules! check {
    ($($law:ident),* $(; with_address: $($address_law:ident),*)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $law() {
                super::on_sqlite(async |url: &str| super::opened(url, super::laws::$law).await).await;
            })*
            $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $address_law() {
                super::on_sqlite(super::laws::$address_law).await;
            })*)?
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $law() {
                let _up = super::SERVER.read().await;
                super::in_schema(async |url: &str| super::opened(url, super::laws::$law).await).await;
            })*
            $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $address_law() {
                let _up = super::SERVER.read().await;
                super::in_schema(super::laws::$address_law).await;
            })*)?
        }
    };
}

check!(
    sweeps_come_back_as_they_were,
    sweeps_are_found_by_project_state_and_source,
    sweep_ends_once_and_only_an_interrupted_one_resumes,
    job_inserted_again_stays_as_it_is,
    publishable_jobs_are_due_and_urgent_first,
    publication_is_begun_by_one,
    handed_back_job_keeps_what_was_made,
    parked_message_keeps_its_body,
    touched_job_is_not_overdue,
    requeued_job_counts_its_failures,
    first_settlement_wins,
    settlements_come_back_as_they_were,
    cancelling_leaves_settled_jobs_alone,
    dead_jobs_are_revived_or_discarded,
    verdicts_are_replaced_and_remembered,
    past_runs_are_of_runs_that_had_ended,
    only_runs_of_the_class_that_recorded_something_take_a_place,
    runs_are_recorded_once_and_completed,
    tests_keep_their_first_and_last_sight,
    projects_are_known_by_their_name,
    links_are_made_and_taken_back,
    outcomes_of_repairs_are_counted_once,
    repairs_end_once,
    a_hundred_thousand_verdicts_take_seconds,
    workers_are_as_last_heard,
    tokens_are_used_and_revoked,
    a_lease_has_one_holder,
    events_are_recorded_once_and_read_in_one_order,
    progress_is_what_was_recorded_last,
    jobs_are_published_in_turns,
    quotas_are_of_each_project,
    pages_are_of_projects_and_go_on,
    nul_in_text_is_replaced;
    with_address:
    concurrent_writers_all_succeed,
    data_survive_reopening,
    new_database_may_be_opened_by_several_at_once,
    who_gives_up_leaves_no_transaction_behind
);

const FROM_THE_FUTURE: &str =
    "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
     SELECT 9999, 'future', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1";

async fn refused_as_newer(url: &str) {
    let error = Db::open(url).await.unwrap_err();
    assert!(matches!(error, DbError::NewerSchema { found: 9999, .. }), "{error:?}");
    assert!(error.to_string().contains("upgrade flakefarm"), "{error}");
}

#[tokio::test]
async fn sqlite_of_a_newer_flakefarm_is_refused() {
    on_sqlite(async |url: &str| {
        Db::open(url).await.unwrap().close().await;
        let path = url.strip_prefix("sqlite:").unwrap();
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        connection.execute(FROM_THE_FUTURE).await.unwrap();
        connection.close().await.unwrap();
        refused_as_newer(url).await;
    })
    .await;
}

#[tokio::test]
async fn postgres_of_a_newer_flakefarm_is_refused() {
    let _up = SERVER.read().await;
    in_schema(async |url: &str| {
        Db::open(url).await.unwrap().close().await;
        let mut connection = PgConnection::connect(url).await.unwrap();
        connection.execute(FROM_THE_FUTURE).await.unwrap();
        refused_as_newer(url).await;
    })
    .await;
}

#[tokio::test]
async fn addresses_that_make_no_sense_are_refused_without_their_password() {
    for address in
        ["", "mysql://u:hidden@h/d", "sqlite:", "sqlite::memory:", "hidden@host", "postgres://u:hidden@h:x/d"]
    {
        let error = Db::open(address).await.unwrap_err();
        assert!(matches!(error, DbError::Address { .. }), "{address}: {error:?}");
        let shown = flakefarm_shared::chain(&error);
        assert!(address.starts_with("hidden") || !shown.contains("hidden"), "{shown}");
    }
}

#[tokio::test]
async fn server_that_is_not_there_is_unreachable() {
    let error = Db::open("postgres://nobody@127.0.0.1:1/none").await.unwrap_err();
    assert!(matches!(error, DbError::Unreachable(_)), "{error:?}");
}

#[tokio::test]
async fn call_after_a_restart_of_the_server_succeeds() {
    let restart = service("FLAKEFARM_TEST_PG_RESTART");
    let _alone = SERVER.write().await;
    in_schema(async |url: &str| {
        let db = Db::open(url).await.unwrap();
        // Several idle connections in the pool, all of them about to be lost.
        futures::future::join_all((0..5).map(|_| db.ping())).await.into_iter().for_each(Result::unwrap);
        let status = tokio::process::Command::new("sh").args(["-c", &restart]).status().await.unwrap();
        assert!(status.success(), "`{restart}` failed: {status}");
        laws::first_settlement_wins(&db).await;
        db.close().await;
    })
    .await;
}
