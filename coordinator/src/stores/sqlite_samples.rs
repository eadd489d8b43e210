//! The samples port in an SQLite file of its own, for the embedded mode. Stores the same packed chunks as
//! Redis does; the contract suite holds the two adapters together. One process owns the file. Every row
//! carries when it expires: reads never see an expired row, and each append begins by deleting them.

use async_trait::async_trait;
use flakefarm_shared::ids::TestId;
use flakefarm_shared::samples::{Appended, Chunk, Retention, SampleError, SampleStore, StoredPoint, codec};
use flakefarm_shared::{UnixMicros, now_micros};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, QueryBuilder, Sqlite};
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::oneshot;

const LAYOUT: i64 = 3;
/// In the order of days: what expires is whole pages at one end. With the series first, pages in the midst of the file
/// filled less and less well, and the file grew although as much was deleted as was added (by 3 % in 300 days).
/// Points of layout 1 are in `chunk`, which stays, with the roll-ups of that time, until all has expired.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS packs (
        day        INTEGER NOT NULL,
        series     INTEGER NOT NULL,
        name       BLOB    NOT NULL,
        packed     BLOB    NOT NULL,
        expires_at INTEGER NOT NULL,
        PRIMARY KEY (day, series, name)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS packs_expiry ON packs (expires_at);
";
/// The table of layout 2 had the series first.
const FROM_LAYOUT_2: &str = "
    INSERT OR IGNORE INTO packs (day, series, name, packed, expires_at)
        SELECT day, series, name, packed, expires_at FROM pack ORDER BY day, series, name;
    DROP TABLE pack;
";
const OLD_TABLES: [&str; 2] = ["chunk", "rollup"];
/// Chunks in one transaction: many, so that the disk is not the limit, and few enough that a reader's
/// checkpoint does not wait long.
const BATCH: usize = 500;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// 32 MiB. Chunks of a job belong to tests all over the file: what is read again for each of them costs more than
/// writing them.
const WRITERS_CACHE: &str = "-32768";
/// 16 MiB of pages: a page that many jobs write to is copied from the log to the file once for all of them.
const CHECKPOINT_PAGES: &str = "4000";

/// Samples in an SQLite file.
pub struct SqliteSamples {
    writer: SqlitePool,
    readers: SqlitePool,
    retention: Retention,
    clock: Box<dyn Fn() -> UnixMicros + Send + Sync>,
    /// Whose turn it is to write, for itself and all who wait.
    turn: tokio::sync::Mutex<()>,
    waiting: Mutex<VecDeque<Waiting>>,
    /// Whether there are points of layout 1.
    has_old: bool,
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
            .pragma("cache_size", WRITERS_CACHE)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .busy_timeout(BUSY_TIMEOUT);
        // The writer stays open: the last connection to close would take the write-ahead log along.
        let writer = SqlitePoolOptions::new()
            .min_connections(1)
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .before_acquire(|connection, _| Box::pin(crate::db::is_between_transactions(connection)))
            .connect_with(options)
            .await
            .map_err(sample_error)?;
        create_tables(&writer, path).await?;
        let has_old = drop_expired_tables(&writer, clock()).await.map_err(sample_error)?;
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
            has_old,
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
        let appended = insert_chunks(&mut transaction, batch, expiry(now, self.retention.points)).await?;
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
        sqlx::query("SELECT 1 FROM packs LIMIT 1")
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
    ) -> Result<Vec<StoredPoint>, SampleError> {
        let series = series_number(codec::series(project, test));
        let days = codec::days(from, to);
        let mut points = Vec::new();
        for (table, of_layout) in self.layouts() {
            let chunks: Vec<(i64, Vec<u8>)> = sqlx::query_as(table.of_series)
                .bind(series)
                .bind(days.start)
                .bind(days.end)
                .bind((self.clock)())
                .fetch_all(&self.readers)
                .await
                .map_err(sample_error)?;
            for (day, packed) in chunks {
                points.extend(of_layout(day, &packed)?);
            }
        }
        points.retain(|stored| (from..to).contains(&stored.point.at));
        codec::sort_stored(&mut points);
        Ok(points)
    }

    async fn points_of_day(
        &self,
        project: &str,
        tests: &[TestId],
        day: i64,
    ) -> Result<Vec<Vec<StoredPoint>>, SampleError> {
        let mut all = vec![Vec::new(); tests.len()];
        for (tests, points) in tests.chunks(BATCH).zip(all.chunks_mut(BATCH)) {
            let places: HashMap<i64, usize> = tests
                .iter()
                .enumerate()
                .map(|(at, test)| (series_number(codec::series(project, test)), at))
                .collect();
            for (table, of_layout) in self.layouts() {
                let mut query = QueryBuilder::<Sqlite>::new(table.of_day);
                query.push_bind(day).push(" AND expires_at > ").push_bind((self.clock)());
                query.push(" AND series IN (");
                let mut series = query.separated(", ");
                for place in places.keys() {
                    series.push_bind(*place);
                }
                query.push(")");
                let chunks: Vec<(i64, Vec<u8>)> =
                    query.build_query_as().fetch_all(&self.readers).await.map_err(sample_error)?;
                for (series, packed) in chunks {
                    points[places[&series]].extend(of_layout(day, &packed)?);
                }
            }
            points.iter_mut().for_each(|points| codec::sort_stored(points));
        }
        Ok(all)
    }
}

/// The statements that read one layout's table.
struct Table {
    of_series: &'static str,
    of_day: &'static str,
}

type Unpack = fn(i64, &[u8]) -> Result<Vec<StoredPoint>, SampleError>;

/// A series is looked up on each day that there is.
const PACKS: Table = Table {
    of_series: "WITH RECURSIVE wanted (day) AS (
                    SELECT max($2, (SELECT min(day) FROM packs))
                    UNION ALL
                    SELECT day + 1 FROM wanted WHERE day < min($3 - 1, (SELECT max(day) FROM packs))
                )
                SELECT packs.day, packed
                FROM wanted CROSS JOIN packs ON packs.day = wanted.day AND packs.series = $1
                WHERE wanted.day < $3 AND expires_at > $4",
    of_day: "SELECT series, packed FROM packs WHERE day = ",
};
const OLD: Table = Table {
    of_series: "SELECT day, points FROM chunk WHERE series = $1 AND day >= $2 AND day < $3 AND expires_at > $4",
    of_day: "SELECT series, points FROM chunk WHERE day = ",
};

impl SqliteSamples {
    /// Where points are, and how each table's are packed.
    fn layouts(&self) -> impl Iterator<Item = (Table, Unpack)> {
        let old = self.has_old.then_some((OLD, codec::unpack_v1 as Unpack));
        std::iter::once((PACKS, codec::unpack_chunks as Unpack)).chain(old)
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
    let rewritten = async {
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::raw_sql(SCHEMA).execute(&mut *transaction).await?;
        if layout == 2 {
            sqlx::raw_sql(FROM_LAYOUT_2).execute(&mut *transaction).await?;
        }
        let layout = format!("PRAGMA user_version = {LAYOUT}");
        sqlx::raw_sql(AssertSqlSafe(layout)).execute(&mut *transaction).await?;
        transaction.commit().await
    };
    rewritten.await.map_err(sample_error)
}

/// Deletes what has expired of layout 1, and its tables once they are empty; says whether points are left.
async fn drop_expired_tables(writer: &SqlitePool, now: UnixMicros) -> Result<bool, sqlx::Error> {
    let mut has_old = false;
    for table in OLD_TABLES {
        let there: i64 =
            sqlx::query_scalar("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = $1")
                .bind(table)
                .fetch_one(writer)
                .await?;
        if there == 0 {
            continue;
        }
        let delete = format!("DELETE FROM {table} WHERE expires_at <= $1");
        sqlx::query(AssertSqlSafe(delete)).bind(now).execute(writer).await?;
        let count = format!("SELECT count(*) FROM {table}");
        let left: i64 = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(writer).await?;
        if left == 0 {
            sqlx::query(AssertSqlSafe(format!("DROP TABLE {table}"))).execute(writer).await?;
        } else if table == "chunk" {
            has_old = true;
        }
    }
    Ok(has_old)
}

async fn delete_expired(connection: &mut SqliteConnection, now: UnixMicros) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM packs WHERE expires_at <= $1").bind(now).execute(connection).await.map(drop)
}

/// A chunk counts once, within this batch, too.
async fn insert_chunks(
    connection: &mut SqliteConnection,
    chunks: &[codec::Prepared],
    expires_at: UnixMicros,
) -> Result<Vec<Appended>, sqlx::Error> {
    // In the order of the table, so that those of one page come together.
    let mut sorted: Vec<&codec::Prepared> = chunks.iter().collect();
    sorted.sort_by_key(|chunk| (chunk.day, series_number(chunk.series)));
    let mut insert =
        QueryBuilder::<Sqlite>::new("INSERT INTO packs (series, day, name, packed, expires_at) ");
    insert.push_values(sorted, |mut row, chunk| {
        row.push_bind(series_number(chunk.series))
            .push_bind(chunk.day)
            .push_bind(chunk.name.to_vec())
            .push_bind(chunk.packed.clone())
            .push_bind(expires_at);
    });
    insert.push(" ON CONFLICT DO NOTHING RETURNING series, day, name");
    let rows: Vec<(i64, i64, Vec<u8>)> = insert.build_query_as().fetch_all(connection).await?;
    let mut inserted: HashSet<(i64, i64, Vec<u8>)> = rows.into_iter().collect();
    let was_new = |chunk: &codec::Prepared| {
        let key = (series_number(chunk.series), chunk.day, chunk.name.to_vec());
        if inserted.remove(&key) { Appended::New } else { Appended::Duplicate }
    };
    Ok(chunks.iter().map(was_new).collect())
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
