//! SQLite: one connection writes, several read. A second process may open the same file (the
//! history is read while a sweep runs); it waits for its turn up to the busy time-out.

use super::error::DbError;
use super::migrations::{self, Seen};
use super::raw::{Noted, RawJob, clean, subject};
use super::rows::{NewJob, VerdictRow};
use flakefarm_shared::{JobId, SweepId, UnixMicros, WorkerId};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous, SqliteTransaction,
};
use sqlx::{Connection, QueryBuilder, Sqlite as Driver};
use std::path::Path;
use std::time::{Duration, Instant};
use uuid::Uuid;

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two tries to open a file that others are opening or closing.
const REOPENING: Duration = Duration::from_millis(20);
/// Longest wait for the one writing connection, behind a bulk insert say.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);
const READERS: u32 = 4;
/// Rows of one INSERT; a statement may bind 32,766 values.
const ROWS_PER_STATEMENT: usize = 500;

/// Looks at a file that is there.
pub(super) async fn inspect(path: &str) -> Result<Seen, DbError> {
    let failed = |source| DbError::from_driver("look at the database", source);
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT).read_only(true);
    let mut connection = SqliteConnection::connect_with(&options).await.map_err(failed)?;
    let looking = async {
        let there: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations')",
        )
        .fetch_one(&mut connection)
        .await?;
        let schema: Option<i64> = if there {
            sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations").fetch_one(&mut connection).await?
        } else {
            None
        };
        let version: String =
            sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&mut connection).await?;
        Ok((schema, version))
    };
    let (schema, version) = looking.await.map_err(failed)?;
    drop(connection.close().await);
    // Its clock is this machine's.
    Ok((schema, version, None, true))
}

/// A database file.
#[derive(Debug, Clone)]
pub struct Sqlite {
    pub(super) writer: SqlitePool,
    pub(super) readers: SqlitePool,
}

impl Sqlite {
    pub(super) async fn open(path: &str) -> Result<Self, DbError> {
        let refuse = |reason: String| DbError::Address { address: format!("sqlite:{path}"), reason };
        if path.is_empty() || path.contains(":memory:") {
            return Err(refuse("it must name a file".to_owned()));
        }
        if let Some(directory) = Path::new(path).parent().filter(|parent| !parent.as_os_str().is_empty()) {
            tokio::fs::create_dir_all(directory)
                .await
                .map_err(|error| refuse(format!("its directory cannot be made: {error}")))?;
        }
        let deadline = Instant::now() + BUSY_TIMEOUT;
        loop {
            match Self::open_once(path).await {
                Err(error) if error.is_busy() && Instant::now() < deadline => {
                    tokio::time::sleep(REOPENING).await;
                }
                opened => return opened,
            }
        }
    }

    /// Fails at once if another process is turning the same file to WAL or closing it as its last
    /// user: there SQLite reports "busy" without waiting.
    async fn open_once(path: &str) -> Result<Self, DbError> {
        let options =
            SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT).foreign_keys(true);
        // NORMAL: a power cut may lose the last transactions, whose work is then done again; a
        // killed process loses none.
        let writing = options
            .clone()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal);
        let writer =
            pool(1).connect_with(writing).await.map_err(|e| DbError::from_driver("open the database", e))?;
        let store = Self { writer, readers: pool(READERS).connect_lazy_with(options.read_only(true)) };
        if let Err(error) = store.migrate().await {
            store.writer.close().await;
            return Err(error);
        }
        Ok(store)
    }

    /// In one transaction that owns the file from its start: two processes may open it at once.
    async fn migrate(&self) -> Result<(), DbError> {
        const ACTION: &str = "bring the schema up to date";
        let mut transaction = self.begin().await.map_err(|e| DbError::from_driver(ACTION, e))?;
        migrations::run(&migrations::sqlite(), &mut *transaction).await?;
        transaction.commit().await.map_err(|e| DbError::from_driver(ACTION, e))
    }

    /// A transaction that will write. One that began by reading could fail instead of waiting.
    pub(super) async fn begin(&self) -> Result<SqliteTransaction<'static>, sqlx::Error> {
        self.writer.begin_with("BEGIN IMMEDIATE").await
    }

    pub(super) async fn insert_jobs(
        &self,
        sweep: SweepId,
        jobs: &[&NewJob],
        ordinals: &[i64],
        now: UnixMicros,
    ) -> Result<u64, sqlx::Error> {
        let mut transaction = self.begin().await?;
        let mut inserted = 0;
        for (jobs, ordinals) in jobs.chunks(ROWS_PER_STATEMENT).zip(ordinals.chunks(ROWS_PER_STATEMENT)) {
            let mut insert = QueryBuilder::<Driver>::new(
                "INSERT INTO jobs (id, sweep, ordinal, job_key, class, spec, attempts, created_at, available_at) ",
            );
            insert.push_values(jobs.iter().zip(ordinals), |mut row, (job, ordinal)| {
                row.push_bind(job.id.0)
                    .push_bind(sweep.0)
                    .push_bind(*ordinal)
                    .push_bind(clean(&job.key))
                    .push_bind(job.class.word())
                    .push_bind(job.spec.to_string())
                    .push_bind(i64::from(job.attempts))
                    .push_bind(now)
                    .push_bind(now);
            });
            insert.push(" ON CONFLICT (id) DO NOTHING");
            inserted += insert.build().execute(&mut *transaction).await?.rows_affected();
        }
        transaction.commit().await?;
        Ok(inserted)
    }

    pub(super) async fn mark_queued(
        &self,
        published: &[(JobId, u32)],
        now: UnixMicros,
    ) -> Result<(), sqlx::Error> {
        let mut transaction = self.begin().await?;
        for published in published.chunks(ROWS_PER_STATEMENT) {
            let mut update = QueryBuilder::<Driver>::new("WITH new (id, publication) AS (");
            update.push_values(published, |mut row, (job, publication)| {
                row.push_bind(job.0).push_bind(i64::from(*publication));
            });
            update.push(
                ") UPDATE jobs SET state = 'queued', publications = new.publication, worker = NULL, \
                 taken = 0, begun_at = NULL, queued_at = ",
            );
            update.push_bind(now).push(", last_news = ").push_bind(now);
            update.push(
                " FROM new WHERE jobs.id = new.id AND jobs.state <> 'settled' \
                 AND jobs.publications < new.publication",
            );
            update.build().execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }

    pub(super) async fn jobs_by_id(&self, jobs: &[JobId]) -> Result<Vec<RawJob>, sqlx::Error> {
        let mut query = QueryBuilder::<Driver>::new("SELECT * FROM jobs WHERE id IN (");
        let mut ids = query.separated(", ");
        jobs.iter().for_each(|job| {
            ids.push_bind(job.0);
        });
        query.push(")");
        query.build_query_as().fetch_all(&self.readers).await
    }

    pub(super) async fn settle_jobs(
        &self,
        ends: &[(JobId, &str, String)],
        now: UnixMicros,
    ) -> Result<(), sqlx::Error> {
        let mut transaction = self.begin().await?;
        for ends in ends.chunks(ROWS_PER_STATEMENT) {
            let mut update = QueryBuilder::<Driver>::new("WITH new (id, ending, settlement) AS (");
            update.push_values(ends, |mut row, (job, ending, settlement)| {
                row.push_bind(job.0).push_bind((*ending).to_owned()).push_bind(settlement.clone());
            });
            update.push(
                ") UPDATE jobs SET state = 'settled', ending = new.ending, settlement = new.settlement, \
                 settled_at = ",
            );
            update.push_bind(now);
            update.push(" FROM new WHERE jobs.id = new.id AND jobs.state <> 'settled'");
            update.build().execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }

    pub(super) async fn begin_publications(
        &self,
        publications: &[(JobId, u32)],
        now: UnixMicros,
        given_up: UnixMicros,
    ) -> Result<Vec<Uuid>, sqlx::Error> {
        let mut transaction = self.begin().await?;
        let mut begun = Vec::with_capacity(publications.len());
        for publications in publications.chunks(ROWS_PER_STATEMENT) {
            let mut update = QueryBuilder::<Driver>::new("WITH new (id, publication) AS (");
            update.push_values(publications, |mut row, (job, publication)| {
                row.push_bind(job.0).push_bind(i64::from(*publication));
            });
            update.push(") UPDATE jobs SET begun = new.publication, begun_at = ").push_bind(now);
            update.push(
                " FROM new WHERE jobs.id = new.id AND jobs.state = 'pending' \
                 AND jobs.begun < new.publication AND jobs.publications < new.publication \
                 AND (jobs.begun_at IS NULL OR jobs.begun_at < ",
            );
            update.push_bind(given_up).push(") RETURNING jobs.id");
            begun.extend(update.build_query_scalar::<Uuid>().fetch_all(&mut *transaction).await?);
        }
        transaction.commit().await?;
        Ok(begun)
    }

    pub(super) async fn touch_jobs(
        &self,
        jobs: &[(JobId, u32)],
        worker: &WorkerId,
        taken: i64,
        now: UnixMicros,
    ) -> Result<(), sqlx::Error> {
        let mut transaction = self.begin().await?;
        for (job, publication) in jobs {
            sqlx::query(
                "UPDATE jobs SET taken = taken | $5, worker = $3, last_news = MAX(last_news, $4)
                 WHERE id = $1 AND publications = $2 AND state = 'queued'",
            )
            .bind(job.0)
            .bind(i64::from(*publication))
            .bind(clean(&worker.0))
            .bind(now)
            .bind(taken)
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await
    }

    pub(super) async fn note_tests(
        &self,
        project: i64,
        tests: &[Noted],
        at: UnixMicros,
    ) -> Result<(), sqlx::Error> {
        let mut transaction = self.begin().await?;
        for tests in tests.chunks(ROWS_PER_STATEMENT) {
            let mut insert = QueryBuilder::<Driver>::new(
                "INSERT INTO tests (project, subject, test, parts, first_seen, last_seen) ",
            );
            insert.push_values(tests, |mut row, noted| {
                row.push_bind(project)
                    .push_bind(noted.subject.clone())
                    .push_bind(noted.test.clone())
                    .push_bind(noted.parts.clone())
                    .push_bind(at)
                    .push_bind(at);
            });
            insert.push(
                " ON CONFLICT (subject) DO UPDATE SET parts = COALESCE(excluded.parts, tests.parts), \
                 first_seen = MIN(tests.first_seen, excluded.first_seen), \
                 last_seen = MAX(tests.last_seen, excluded.last_seen)",
            );
            insert.build().execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }

    pub(super) async fn record_verdicts(
        &self,
        sweep: SweepId,
        verdicts: &[VerdictRow],
    ) -> Result<(), sqlx::Error> {
        let mut transaction = self.begin().await?;
        for verdicts in verdicts.chunks(ROWS_PER_STATEMENT) {
            let mut insert = QueryBuilder::<Driver>::new(
                "INSERT INTO verdicts (sweep, subject, project, test, verdict, attempts, failures, \
                 estimate, lower, upper, score, p50_ms, finished_at, fingerprint) ",
            );
            insert.push_values(verdicts, |mut row, verdict| {
                let (project, test) = (clean(&verdict.project), clean(verdict.test.as_str()));
                row.push_bind(sweep.0)
                    .push_bind(subject(&project, &test))
                    .push_bind(project)
                    .push_bind(test)
                    .push_bind(clean(&verdict.verdict))
                    .push_bind(i64::from(verdict.attempts))
                    .push_bind(i64::from(verdict.failures))
                    .push_bind(verdict.estimate)
                    .push_bind(verdict.lower)
                    .push_bind(verdict.upper)
                    .push_bind(verdict.score)
                    .push_bind(verdict.p50_ms)
                    .push_bind(verdict.finished_at)
                    .push_bind(verdict.fingerprint.as_ref().map(|digest| digest.as_str().to_owned()));
            });
            insert.push(
                " ON CONFLICT (sweep, subject) DO UPDATE SET verdict = excluded.verdict, \
                 attempts = excluded.attempts, failures = excluded.failures, estimate = excluded.estimate, \
                 lower = excluded.lower, upper = excluded.upper, score = excluded.score, \
                 p50_ms = excluded.p50_ms, finished_at = excluded.finished_at, \
                 fingerprint = excluded.fingerprint",
            );
            insert.build().execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }
}

/// A commit that met a full disk was rolled back by SQLite, but the driver counts on: such a
/// connection would refuse every further transaction and is dropped.
pub(crate) async fn is_between_transactions(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    Ok(!connection.is_in_transaction())
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .before_acquire(|connection, _| Box::pin(is_between_transactions(connection)))
}
