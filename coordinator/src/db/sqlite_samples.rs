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
use sqlx::{QueryBuilder, Sqlite};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::oneshot;

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
    /// Whose turn it is to write, for itself and all who wait.
    turn: tokio::sync::Mutex<()>,
    waiting: Mutex<VecDeque<Waiting>>,
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
        let samples = Self {
            writer,
            readers,
            retention,
            clock: Box::new(clock),
            turn: tokio::sync::Mutex::default(),
            waiting: Mutex::default(),
        };
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
        let appended = insert_chunks(&mut transaction, batch, expiry(now, self.retention.raw)).await?;
        let new = batch.iter().zip(&appended).filter(|(_, appended)| **appended == Appended::New);
        merge_rollups(&mut transaction, new.map(|(chunk, _)| chunk), &self.retention, now).await?;
        transaction.commit().await?;
        Ok(appended)
    }

    /// Appends together with all who wait at the same time: a transaction costs more than its rows.
    /// Whoever's turn it is writes for those before it, too. Cancel safe: if the one that writes is
    /// dropped, the others write for themselves.
    async fn append_together(&self, chunks: Vec<codec::Prepared>) -> Result<Vec<Appended>, SampleError> {
        let chunks = Arc::new(chunks);
        loop {
            let (reply, mut answer) = oneshot::channel();
            self.lock_waiting().push_back(Waiting { chunks: chunks.clone(), reply });
            loop {
                let _turn = self.turn.lock().await;
                match answer.try_recv() {
                    Ok(answer) => return answer.map_err(|failure| failure.as_error()),
                    // Whoever had taken it up was dropped.
                    Err(oneshot::error::TryRecvError::Closed) => break,
                    Err(oneshot::error::TryRecvError::Empty) => {
                        let taken = self.take_waiting();
                        self.write_for(taken).await;
                    }
                }
            }
        }
    }

    /// The first who wait, as many as fill a transaction.
    fn take_waiting(&self) -> Vec<Waiting> {
        let mut waiting = self.lock_waiting();
        let (mut taken, mut count) = (Vec::new(), 0);
        while count < BATCH
            && let Some(next) = waiting.pop_front()
        {
            count += next.chunks.len();
            taken.push(next);
        }
        taken
    }

    async fn write_for(&self, taken: Vec<Waiting>) {
        let all: Vec<codec::Prepared> =
            taken.iter().flat_map(|waiting| waiting.chunks.iter().cloned()).collect();
        let mut appended = Vec::with_capacity(all.len());
        let mut failure = None;
        for batch in all.chunks(BATCH) {
            match self.append_batch(batch).await {
                Ok(done) => appended.extend(done),
                Err(error) => {
                    failure = Some(Failure::of(&sample_error(error)));
                    break;
                }
            }
        }
        let mut appended = appended.into_iter();
        for waiting in taken {
            let answer: Vec<Appended> = appended.by_ref().take(waiting.chunks.len()).collect();
            let answer = match &failure {
                Some(failure) if answer.len() < waiting.chunks.len() => Err(failure.clone()),
                _ => Ok(answer),
            };
            // Whoever waited may have gone away.
            drop(waiting.reply.send(answer));
        }
    }

    fn lock_waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().expect("no holder panics")
    }
}

/// Chunks of one call, and whom to tell.
struct Waiting {
    chunks: Arc<Vec<codec::Prepared>>,
    reply: oneshot::Sender<Result<Vec<Appended>, Failure>>,
}

/// An error that several callers get.
#[derive(Debug, Clone)]
enum Failure {
    Unreachable(String),
    Full(String),
    Damaged(String),
    Refused(String),
}

impl Failure {
    fn of(error: &SampleError) -> Self {
        match error {
            SampleError::Unreachable(message) => Failure::Unreachable(message.clone()),
            SampleError::Full(message) => Failure::Full(message.clone()),
            SampleError::Damaged(message) => Failure::Damaged(message.clone()),
            SampleError::Refused(message) => Failure::Refused(message.clone()),
        }
    }

    fn as_error(&self) -> SampleError {
        match self.clone() {
            Failure::Unreachable(message) => SampleError::Unreachable(message),
            Failure::Full(message) => SampleError::Full(message),
            Failure::Damaged(message) => SampleError::Damaged(message),
            Failure::Refused(message) => SampleError::Refused(message),
        }
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
        self.append_together(prepared).await
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

/// A chunk counts once, within this batch, too.
async fn insert_chunks(
    connection: &mut SqliteConnection,
    chunks: &[codec::Prepared],
    expires_at: UnixMicros,
) -> Result<Vec<Appended>, sqlx::Error> {
    let mut insert =
        QueryBuilder::<Sqlite>::new("INSERT INTO chunk (series, day, field, points, expires_at) ");
    insert.push_values(chunks, |mut row, chunk| {
        row.push_bind(series_number(chunk.series))
            .push_bind(chunk.day)
            .push_bind(chunk.field.to_vec())
            .push_bind(chunk.points.clone())
            .push_bind(expires_at);
    });
    insert.push(" ON CONFLICT DO NOTHING RETURNING series, day, field");
    let rows: Vec<(i64, i64, Vec<u8>)> = insert.build_query_as().fetch_all(connection).await?;
    let mut inserted: HashSet<(i64, i64, Vec<u8>)> = rows.into_iter().collect();
    let was_new = |chunk: &codec::Prepared| {
        let key = (series_number(chunk.series), chunk.day, chunk.field.to_vec());
        if inserted.remove(&key) { Appended::New } else { Appended::Duplicate }
    };
    Ok(chunks.iter().map(was_new).collect())
}

/// Merges what is new into the stored roll-ups, which keep their expiry.
async fn merge_rollups(
    connection: &mut SqliteConnection,
    new: impl Iterator<Item = &codec::Prepared>,
    retention: &Retention,
    now: UnixMicros,
) -> Result<(), sqlx::Error> {
    let mut parts: BTreeMap<(i64, i64, UnixMicros), (Rollup, UnixMicros)> = BTreeMap::new();
    for chunk in new {
        let series = series_number(chunk.series);
        let hours = chunk.hours.iter().map(|part| (Span::Hour, retention.hourly, part));
        let days = chunk.total.iter().map(|part| (Span::Day, retention.daily, part));
        for (span, keep, part) in hours.chain(days) {
            parts
                .entry((series, span_hours(span), part.start))
                .and_modify(|(merged, _)| *merged = merged.merge(part))
                .or_insert((*part, expiry(now, keep)));
        }
    }
    let mut parts: Vec<_> = parts.into_iter().collect();
    for parts in parts.chunks_mut(BATCH) {
        let mut select = QueryBuilder::<Sqlite>::new(
            "SELECT series, span_hours, start, packed FROM rollup WHERE (series, span_hours, start) IN (",
        );
        select.push_values(parts.iter(), |mut row, ((series, hours, start), _)| {
            row.push_bind(*series).push_bind(*hours).push_bind(*start);
        });
        select.push(")");
        let stored: Vec<(i64, i64, UnixMicros, Vec<u8>)> =
            select.build_query_as().fetch_all(&mut *connection).await?;
        let mut known = HashMap::with_capacity(stored.len());
        for (series, hours, start, packed) in stored {
            let rollup = codec::unpack_rollup(start, &packed)
                .map_err(|damage| sqlx::Error::Decode(Box::new(damage)))?;
            known.insert((series, hours, start), rollup);
        }
        let mut upsert = QueryBuilder::<Sqlite>::new(
            "INSERT INTO rollup (series, span_hours, start, packed, expires_at) ",
        );
        upsert.push_values(parts.iter(), |mut row, (key, (part, expires_at))| {
            let merged = known.get(key).map_or(*part, |stored| stored.merge(part));
            let (series, hours, start) = key;
            row.push_bind(*series)
                .push_bind(*hours)
                .push_bind(*start)
                .push_bind(codec::pack_rollup(&merged).to_vec())
                .push_bind(*expires_at);
        });
        upsert.push(" ON CONFLICT (series, span_hours, start) DO UPDATE SET packed = excluded.packed");
        upsert.build().execute(&mut *connection).await?;
    }
    Ok(())
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
mod tests;
