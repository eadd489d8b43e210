//! The samples port in an SQLite file of its own, for the embedded mode. Stores the same packed
//! chunks and roll-ups as Redis does; the contract suite holds the two adapters together. One
//! process owns the file. Every row carries when it expires: reads never see an expired row, and
//! each append begins by deleting them.

use async_trait::async_trait;
use flakefarm_shared::ids::TestId;
use flakefarm_shared::samples::{
    Appended, Chunk, Point, Retention, Rollup, SampleError, SampleStore, Span, codec,
};
use flakefarm_shared::{UnixMicros, now_micros};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use std::path::Path;
use std::time::Duration;

const LAYOUT: i64 = 1;
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS chunk (
        series     INTEGER NOT NULL,
        day        INTEGER NOT NULL,
        field      BLOB    NOT NULL CHECK (length(field) = 18),
        points     BLOB    NOT NULL,
        expires_at INTEGER NOT NULL,
        PRIMARY KEY (series, day, field)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS chunk_expiry ON chunk (expires_at);
    CREATE TABLE IF NOT EXISTS rollup (
        series     INTEGER NOT NULL,
        span_hours INTEGER NOT NULL CHECK (span_hours IN (1, 24)),
        start      INTEGER NOT NULL,
        packed     BLOB    NOT NULL CHECK (length(packed) = 32),
        expires_at INTEGER NOT NULL,
        PRIMARY KEY (series, span_hours, start)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS rollup_expiry ON rollup (expires_at);
    PRAGMA user_version = 1;
";
/// Chunks in one transaction: many, so that the disk is not the limit, and few enough that a reader's
/// checkpoint does not wait long.
const BATCH: usize = 500;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Samples in an SQLite file.
pub struct SqliteSamples {
    writer: SqlitePool,
    readers: SqlitePool,
    retention: Retention,
    clock: Box<dyn Fn() -> UnixMicros + Send + Sync>,
}

impl std::fmt::Debug for SqliteSamples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteSamples").field("retention", &self.retention).finish_non_exhaustive()
    }
}

impl SqliteSamples {
    /// Opens or creates the file at `path`, in a directory that exists, and deletes what has expired.
    pub async fn open(path: &Path, retention: Retention) -> Result<Self, SampleError> {
        Self::open_with_clock(path, retention, now_micros).await
    }

    /// The same with a clock of the caller's, which decides what has expired.
    pub async fn open_with_clock(
        path: &Path,
        retention: Retention,
        clock: impl Fn() -> UnixMicros + Send + Sync + 'static,
    ) -> Result<Self, SampleError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY_TIMEOUT);
        // The writer stays open: the last connection to close would take the write-ahead log along.
        let writer = SqlitePoolOptions::new()
            .min_connections(1)
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .before_acquire(|connection, _| Box::pin(super::sqlite::is_between_transactions(connection)))
            .connect_with(options)
            .await
            .map_err(sample_error)?;
        create_tables(&writer, path).await?;
        let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY_TIMEOUT);
        let readers =
            SqlitePoolOptions::new().max_connections(4).connect_with(options).await.map_err(sample_error)?;
        let samples = Self { writer, readers, retention, clock: Box::new(clock) };
        samples.purge().await?;
        Ok(samples)
    }

    /// Deletes what has expired.
    async fn purge(&self) -> Result<(), SampleError> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(sample_error)?;
        delete_expired(&mut transaction, (self.clock)()).await.map_err(sample_error)?;
        transaction.commit().await.map_err(sample_error)
    }

    /// All or none of a batch; dropping the future rolls it back.
    async fn append_batch(&self, batch: &[codec::Prepared]) -> Result<Vec<Appended>, sqlx::Error> {
        let now = (self.clock)();
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        delete_expired(&mut transaction, now).await?;
        let mut appended = Vec::with_capacity(batch.len());
        for chunk in batch {
            appended.push(append_chunk(&mut transaction, chunk, &self.retention, now).await?);
        }
        transaction.commit().await?;
        Ok(appended)
    }
}

#[async_trait]
impl SampleStore for SqliteSamples {
    async fn check(&self) -> Result<(), SampleError> {
        self.purge().await?;
        sqlx::query("SELECT 1 FROM chunk LIMIT 1")
            .fetch_optional(&self.readers)
            .await
            .map(drop)
            .map_err(sample_error)
    }

    async fn append(&self, chunks: &[Chunk]) -> Result<Vec<Appended>, SampleError> {
        let prepared = chunks.iter().map(codec::prepare).collect::<Result<Vec<_>, _>>()?;
        let mut appended = Vec::with_capacity(prepared.len());
        for batch in prepared.chunks(BATCH) {
            appended.extend(self.append_batch(batch).await.map_err(sample_error)?);
        }
        Ok(appended)
    }

    async fn points(
        &self,
        project: &str,
        test: &TestId,
        from: UnixMicros,
        to: UnixMicros,
    ) -> Result<Vec<Point>, SampleError> {
        let days = codec::days(from, to);
        let chunks: Vec<(i64, Vec<u8>)> = sqlx::query_as(
            "SELECT day, points FROM chunk WHERE series = $1 AND day >= $2 AND day < $3 AND expires_at > $4",
        )
        .bind(series_number(codec::series(project, test)))
        .bind(days.start)
        .bind(days.end)
        .bind((self.clock)())
        .fetch_all(&self.readers)
        .await
        .map_err(sample_error)?;
        let mut points = Vec::new();
        for (day, packed) in chunks {
            points.extend(codec::unpack_points(day, &packed)?);
        }
        points.retain(|point| (from..to).contains(&point.at));
        codec::sort_points(&mut points);
        Ok(points)
    }

    async fn rollups(
        &self,
        project: &str,
        test: &TestId,
        span: Span,
        from: UnixMicros,
        to: UnixMicros,
    ) -> Result<Vec<Rollup>, SampleError> {
        let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(
            "SELECT start, packed FROM rollup
             WHERE series = $1 AND span_hours = $2 AND start >= $3 AND start < $4 AND expires_at > $5
             ORDER BY start",
        )
        .bind(series_number(codec::series(project, test)))
        .bind(span_hours(span))
        .bind(from)
        .bind(to)
        .bind((self.clock)())
        .fetch_all(&self.readers)
        .await
        .map_err(sample_error)?;
        rows.into_iter().map(|(start, packed)| codec::unpack_rollup(start, &packed)).collect()
    }
}

async fn create_tables(writer: &SqlitePool, path: &Path) -> Result<(), SampleError> {
    let layout: i64 =
        sqlx::query_scalar("PRAGMA user_version").fetch_one(writer).await.map_err(sample_error)?;
    if layout > LAYOUT {
        let path = path.display();
        return Err(SampleError::Refused(format!(
            "{path} was written by a newer flakefarm (layout {layout})"
        )));
    }
    sqlx::raw_sql(SCHEMA).execute(writer).await.map(drop).map_err(sample_error)
}

async fn delete_expired(connection: &mut SqliteConnection, now: UnixMicros) -> Result<(), sqlx::Error> {
    for statement in ["DELETE FROM chunk WHERE expires_at <= $1", "DELETE FROM rollup WHERE expires_at <= $1"]
    {
        sqlx::query(statement).bind(now).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn append_chunk(
    connection: &mut SqliteConnection,
    chunk: &codec::Prepared,
    retention: &Retention,
    now: UnixMicros,
) -> Result<Appended, sqlx::Error> {
    let series = series_number(chunk.series);
    let inserted = sqlx::query(
        "INSERT INTO chunk (series, day, field, points, expires_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT DO NOTHING",
    )
    .bind(series)
    .bind(chunk.day)
    .bind(&chunk.field[..])
    .bind(&chunk.points[..])
    .bind(expiry(now, retention.raw))
    .execute(&mut *connection)
    .await?
    .rows_affected();
    if inserted == 0 {
        return Ok(Appended::Duplicate);
    }
    for hour in &chunk.hours {
        merge_rollup(connection, series, Span::Hour, hour, expiry(now, retention.hourly)).await?;
    }
    if let Some(total) = &chunk.total {
        merge_rollup(connection, series, Span::Day, total, expiry(now, retention.daily)).await?;
    }
    Ok(Appended::New)
}

/// Merges into the stored roll-up, which keeps its expiry.
async fn merge_rollup(
    connection: &mut SqliteConnection,
    series: i64,
    span: Span,
    part: &Rollup,
    expires_at: UnixMicros,
) -> Result<(), sqlx::Error> {
    let stored: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT packed FROM rollup WHERE series = $1 AND span_hours = $2 AND start = $3")
            .bind(series)
            .bind(span_hours(span))
            .bind(part.start)
            .fetch_optional(&mut *connection)
            .await?;
    let merged = match stored {
        Some(packed) => codec::unpack_rollup(part.start, &packed)
            .map_err(|damage| sqlx::Error::Decode(Box::new(damage)))?
            .merge(part),
        None => *part,
    };
    sqlx::query(
        "INSERT INTO rollup (series, span_hours, start, packed, expires_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (series, span_hours, start) DO UPDATE SET packed = excluded.packed",
    )
    .bind(series)
    .bind(span_hours(span))
    .bind(part.start)
    .bind(&codec::pack_rollup(&merged)[..])
    .bind(expires_at)
    .execute(connection)
    .await
    .map(drop)
}

fn span_hours(span: Span) -> i64 {
    match span {
        Span::Hour => 1,
        Span::Day => 24,
    }
}

/// SQLite's integers are signed; the bits are the same.
fn series_number(series: [u8; 8]) -> i64 {
    i64::from_be_bytes(series)
}

fn expiry(now: UnixMicros, keep: Duration) -> UnixMicros {
    now.saturating_add(i64::try_from(keep.as_micros()).unwrap_or(i64::MAX))
}

/// Sorts by SQLite's primary result code (the low byte): 13 full, 11 corrupt, 26 not a database.
fn sample_error(error: sqlx::Error) -> SampleError {
    let code = match &error {
        sqlx::Error::Database(database) => {
            database.code().and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xFF)
        }
        _ => None,
    };
    match (&error, code) {
        (_, Some(13)) => SampleError::Full(error.to_string()),
        (_, Some(11 | 26)) | (sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. }, _) => {
            SampleError::Damaged(error.to_string())
        }
        _ => SampleError::Unreachable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flakefarm_shared::ids::JobId;
    use flakefarm_shared::samples::PointOutcome;
    use std::sync::Arc;
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
        let store =
            SqliteSamples::open_with_clock(&directory.path().join("samples.db"), retention, move || {
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
        let rows: i64 =
            sqlx::query_scalar("SELECT (SELECT count(*) FROM chunk) + (SELECT count(*) FROM rollup)")
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
}
