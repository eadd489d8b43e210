//! PostgreSQL. Statements that touch several rows lock them in the order of their ids, so that two
//! of them never wait for each other.

use super::error::DbError;
use super::migrations::{self, Seen};
use super::raw::{Noted, RawJob, clean, subject};
use super::rows::{NewJob, VerdictRow};
use flakefarm_shared::{JobId, SweepId, UnixMicros, WorkerId};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Transaction};
use std::time::Duration;
use uuid::Uuid;

/// Longest wait for a connection; a server that restarts comes back within it.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// The server's own limit of one statement.
const STATEMENT_TIMEOUT: &str = "30s";
/// Ours, for a server that says nothing at all.
const DEADLINE: Duration = Duration::from_secs(60);
const CONNECTIONS: u32 = 10;
/// How long a connection may have lain idle and be used without a question whether it still lives: the question
/// is one more way to the server and back before each statement. A server that restarts takes longer.
const SURELY_ALIVE: Duration = Duration::from_millis(100);
/// Rows of one INSERT.
const ROWS_PER_STATEMENT: usize = 10_000;

/// A database on a server.
#[derive(Debug, Clone)]
pub struct Postgres {
    pub(super) pool: PgPool,
}

impl Postgres {
    pub(super) async fn open(url: &str) -> Result<Self, DbError> {
        let options: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| DbError::Address {
            address: without_password(url),
            reason: error.to_string(),
        })?;
        let options = options.application_name("flakefarm");
        // A connection of its own: a migration may take longer than a statement otherwise may.
        migrate(&options).await?;
        let options = options.options([("statement_timeout", STATEMENT_TIMEOUT)]);
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .before_acquire(|connection, about| {
                Box::pin(async move {
                    if about.idle_for > SURELY_ALIVE {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_with(options)
            .await
            .map_err(|source| DbError::from_driver("open the database", source))?;
        Ok(Self { pool })
    }

    /// Begins a transaction. Who asks may go away before it has begun (a client that hangs up, a deadline): the
    /// driver would then give the connection back with a transaction that nobody ends, and what is written
    /// over it later would never be committed. So beginning goes on without them.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, sqlx::Postgres>, sqlx::Error> {
        let pool = self.pool.clone();
        let beginning = tokio::spawn(async move { pool.begin().await });
        beginning.await.map_err(|stopped| sqlx::Error::Io(std::io::Error::other(stopped)))?
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
            let done = sqlx::query(
                "INSERT INTO jobs (id, sweep, ordinal, job_key, class, spec, attempts, created_at, available_at)
                 SELECT new.id, $1, new.ordinal, new.job_key, new.class, new.spec, new.attempts, $2, $2
                 FROM UNNEST($3::uuid[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::bigint[])
                      AS new (id, ordinal, job_key, class, spec, attempts)
                 ORDER BY new.id
                 ON CONFLICT (id) DO NOTHING",
            )
            .bind(sweep.0)
            .bind(now)
            .bind(jobs.iter().map(|job| job.id.0).collect::<Vec<_>>())
            .bind(ordinals)
            .bind(jobs.iter().map(|job| clean(&job.key)).collect::<Vec<_>>())
            .bind(jobs.iter().map(|job| job.class.word()).collect::<Vec<_>>())
            .bind(jobs.iter().map(|job| job.spec.to_string()).collect::<Vec<_>>())
            .bind(jobs.iter().map(|job| i64::from(job.attempts)).collect::<Vec<_>>())
            .execute(&mut *transaction)
            .await?;
            inserted += done.rows_affected();
        }
        transaction.commit().await?;
        Ok(inserted)
    }

    pub(super) async fn mark_queued(
        &self,
        published: &[(JobId, u32)],
        now: UnixMicros,
    ) -> Result<(), sqlx::Error> {
        let (jobs, publications) = columns(published);
        sqlx::query(
            "WITH new AS (
                 SELECT new.id, new.publication FROM UNNEST($1::uuid[], $2::bigint[]) AS new (id, publication)
                 JOIN jobs ON jobs.id = new.id ORDER BY jobs.id FOR UPDATE OF jobs
             )
             UPDATE jobs SET state = 'queued', publications = new.publication, queued_at = $3, last_news = $3,
                             worker = NULL, taken = 0, begun_at = NULL
             FROM new
             WHERE jobs.id = new.id AND jobs.state <> 'settled' AND jobs.publications < new.publication",
        )
        .bind(jobs)
        .bind(publications)
        .bind(now)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    pub(super) async fn jobs_by_id(&self, jobs: &[JobId]) -> Result<Vec<RawJob>, sqlx::Error> {
        let ids: Vec<Uuid> = jobs.iter().map(|job| job.0).collect();
        sqlx::query_as("SELECT * FROM jobs WHERE id = ANY($1)").bind(ids).fetch_all(&self.pool).await
    }

    pub(super) async fn settle_jobs(
        &self,
        ends: &[(JobId, &str, String)],
        now: UnixMicros,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(
            "WITH new AS (
                 SELECT new.id, new.ending, new.settlement
                 FROM UNNEST($1::uuid[], $2::text[], $3::text[]) AS new (id, ending, settlement)
                 JOIN jobs ON jobs.id = new.id ORDER BY jobs.id FOR UPDATE OF jobs
             )
             UPDATE jobs SET state = 'settled', ending = new.ending, settlement = new.settlement,
                             settled_at = $4
             FROM new WHERE jobs.id = new.id AND jobs.state <> 'settled'",
        )
        .bind(ends.iter().map(|(job, _, _)| job.0).collect::<Vec<_>>())
        .bind(ends.iter().map(|(_, ending, _)| *ending).collect::<Vec<_>>())
        .bind(ends.iter().map(|(_, _, settlement)| settlement.as_str()).collect::<Vec<_>>())
        .bind(now)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    pub(super) async fn begin_publications(
        &self,
        publications: &[(JobId, u32)],
        now: UnixMicros,
        given_up: UnixMicros,
    ) -> Result<Vec<Uuid>, sqlx::Error> {
        let (jobs, numbers) = columns(publications);
        sqlx::query_scalar(
            "WITH new AS (
                 SELECT new.id, new.publication FROM UNNEST($1::uuid[], $2::bigint[]) AS new (id, publication)
                 JOIN jobs ON jobs.id = new.id ORDER BY jobs.id FOR UPDATE OF jobs
             )
             UPDATE jobs SET begun = new.publication, begun_at = $3 FROM new
             WHERE jobs.id = new.id AND jobs.state = 'pending' AND jobs.begun < new.publication
               AND jobs.publications < new.publication AND (jobs.begun_at IS NULL OR jobs.begun_at < $4)
             RETURNING jobs.id",
        )
        .bind(jobs)
        .bind(numbers)
        .bind(now)
        .bind(given_up)
        .fetch_all(&self.pool)
        .await
    }

    pub(super) async fn touch_jobs(
        &self,
        jobs: &[(JobId, u32)],
        worker: &WorkerId,
        taken: i64,
        now: UnixMicros,
    ) -> Result<(), sqlx::Error> {
        let (jobs, numbers) = columns(jobs);
        sqlx::query(
            "WITH new AS (
                 SELECT new.id, new.publication FROM UNNEST($1::uuid[], $2::bigint[]) AS new (id, publication)
                 JOIN jobs ON jobs.id = new.id WHERE jobs.state = 'queued' ORDER BY jobs.id FOR UPDATE OF jobs
             )
             UPDATE jobs SET taken = taken | $5, worker = $3, last_news = GREATEST(last_news, $4) FROM new
             WHERE jobs.id = new.id AND jobs.state = 'queued' AND jobs.publications = new.publication",
        )
        .bind(jobs)
        .bind(numbers)
        .bind(clean(&worker.0))
        .bind(now)
        .bind(taken)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    pub(super) async fn cancel_jobs(
        &self,
        sweep: SweepId,
        settlement: &str,
        now: UnixMicros,
    ) -> Result<u64, sqlx::Error> {
        let done = sqlx::query(
            "UPDATE jobs SET state = 'settled', ending = 'cancelled', settlement = $2, settled_at = $3
             WHERE state <> 'settled' AND id IN
                   (SELECT id FROM jobs WHERE sweep = $1 AND state <> 'settled' ORDER BY id FOR UPDATE)",
        )
        .bind(sweep.0)
        .bind(settlement)
        .bind(now)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }

    pub(super) async fn note_tests(
        &self,
        project: i64,
        tests: &[Noted],
        at: UnixMicros,
    ) -> Result<(), sqlx::Error> {
        let mut transaction = self.begin().await?;
        for tests in tests.chunks(ROWS_PER_STATEMENT) {
            sqlx::query(
                "INSERT INTO tests (project, subject, test, parts, first_seen, last_seen)
                 SELECT $1, new.subject, new.test, new.parts, $2, $2
                 FROM UNNEST($3::bytea[], $4::text[], $5::text[]) AS new (subject, test, parts)
                 ON CONFLICT (subject) DO UPDATE SET parts = COALESCE(excluded.parts, tests.parts),
                     first_seen = LEAST(tests.first_seen, excluded.first_seen),
                     last_seen = GREATEST(tests.last_seen, excluded.last_seen)",
            )
            .bind(project)
            .bind(at)
            .bind(tests.iter().map(|noted| noted.subject.clone()).collect::<Vec<_>>())
            .bind(tests.iter().map(|noted| noted.test.clone()).collect::<Vec<_>>())
            .bind(tests.iter().map(|noted| noted.parts.clone()).collect::<Vec<_>>())
            .execute(&mut *transaction)
            .await?;
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
            let projects: Vec<_> = verdicts.iter().map(|verdict| clean(&verdict.project)).collect();
            let tests: Vec<_> = verdicts.iter().map(|verdict| clean(verdict.test.as_str())).collect();
            let subjects: Vec<_> = projects.iter().zip(&tests).map(|(p, t)| subject(p, t)).collect();
            let of = |number: fn(&VerdictRow) -> f64| verdicts.iter().map(number).collect::<Vec<_>>();
            sqlx::query(
                "INSERT INTO verdicts (sweep, subject, project, test, verdict, attempts, failures,
                                       estimate, lower, upper, score, p50_ms, finished_at, fingerprint)
                 SELECT $1, new.* FROM UNNEST(
                     $2::bytea[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[],
                     $8::float8[], $9::float8[], $10::float8[], $11::float8[], $12::float8[], $13::bigint[],
                     $14::text[]) AS new
                 ON CONFLICT (sweep, subject) DO UPDATE SET verdict = excluded.verdict,
                     attempts = excluded.attempts, failures = excluded.failures, estimate = excluded.estimate,
                     lower = excluded.lower, upper = excluded.upper, score = excluded.score,
                     p50_ms = excluded.p50_ms, finished_at = excluded.finished_at,
                     fingerprint = excluded.fingerprint",
            )
            .bind(sweep.0)
            .bind(subjects)
            .bind(projects)
            .bind(tests)
            .bind(verdicts.iter().map(|verdict| clean(&verdict.verdict)).collect::<Vec<_>>())
            .bind(verdicts.iter().map(|verdict| i64::from(verdict.attempts)).collect::<Vec<_>>())
            .bind(verdicts.iter().map(|verdict| i64::from(verdict.failures)).collect::<Vec<_>>())
            .bind(of(|verdict| verdict.estimate))
            .bind(of(|verdict| verdict.lower))
            .bind(of(|verdict| verdict.upper))
            .bind(of(|verdict| verdict.score))
            .bind(of(|verdict| verdict.p50_ms))
            .bind(verdicts.iter().map(|verdict| verdict.finished_at).collect::<Vec<_>>())
            .bind(
                verdicts
                    .iter()
                    .map(|verdict| verdict.fingerprint.as_ref().map(|digest| digest.as_str().to_owned()))
                    .collect::<Vec<_>>(),
            )
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await
    }
}

fn columns(publications: &[(JobId, u32)]) -> (Vec<Uuid>, Vec<i64>) {
    publications.iter().map(|(job, publication)| (job.0, i64::from(*publication))).unzip()
}

/// Looks at a server's database.
pub(super) async fn inspect(url: &str) -> Result<Seen, DbError> {
    let options: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| DbError::Address {
        address: without_password(url),
        reason: error.to_string(),
    })?;
    let failed = |source| DbError::from_driver("look at the database", source);
    let connecting = tokio::time::timeout(ACQUIRE_TIMEOUT, options.connect()).await;
    let mut connection = connecting.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(failed)?;
    let looking = async {
        let there: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
            .fetch_one(&mut connection)
            .await?;
        let schema: Option<i64> = if there {
            sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations").fetch_one(&mut connection).await?
        } else {
            None
        };
        let (version, clock, may): (String, i64, bool) = sqlx::query_as(
            "SELECT current_setting('server_version'), (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint,
                    COALESCE(has_schema_privilege(current_schema(), 'CREATE'), FALSE)",
        )
        .fetch_one(&mut connection)
        .await?;
        Ok((schema, version, Some(clock), may))
    };
    let seen = in_time(looking).await.map_err(failed)?;
    // It has done its work; a failure to say goodbye changes nothing.
    drop(connection.close().await);
    Ok(seen)
}

/// Bounds a call to the server: one that fell silent is an error, not a hang.
pub(super) async fn in_time<T>(call: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let late =
        |_| Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time")));
    let bounded = async { tokio::time::timeout(DEADLINE, call).await.unwrap_or_else(late) };
    super::statement(bounded).await
}

/// Under the driver's advisory lock: several coordinators may start at once.
async fn migrate(options: &PgConnectOptions) -> Result<(), DbError> {
    let connecting = tokio::time::timeout(ACQUIRE_TIMEOUT, options.connect()).await;
    let mut connection = connecting
        .unwrap_or(Err(sqlx::Error::PoolTimedOut))
        .map_err(|source| DbError::from_driver("open the database", source))?;
    let done = migrations::run(&migrations::postgres(), &mut connection).await;
    // It has done its work; a failure to say goodbye changes nothing.
    drop(connection.close().await);
    done
}

fn without_password(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(mut url) => {
            let hidden = url.password().is_some() && url.set_password(Some("***")).is_ok();
            if hidden || url.password().is_none() { url.to_string() } else { "postgres://".to_owned() }
        }
        Err(_) => "postgres://".to_owned(),
    }
}
