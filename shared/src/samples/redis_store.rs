//! The samples port on Redis or Valkey, 7.0 or newer, one server (not a cluster), no modules.
//!
//! | key | value |
//! | --- | --- |
//! | `ff2:{series}:YYYYMMDD` | the pack of the test and day, a string |
//! | `ff1:{series}:r:YYYYMMDD` | written until version 0.1, read until it expires: a hash, one field per chunk of layout 1 |
//!
//! The series is 16 hexadecimal digits, see [`codec::series`]. One script per chunk appends it or does
//! nothing: a chunk's name in the pack is the record of the append. Keys expire as a whole, counted from
//! their first write. With one sample per chunk and 20 of them per test and day a sample costs 36 bytes
//! as `MEMORY USAGE` counts (the contract suite measures it).
//! Rejected: a hash with a field per chunk (twice the memory where a chunk has one sample), streams (4 KiB
//! per test at least), sorted sets (six times the memory), time series modules.

use super::{Appended, Chunk, Retention, SampleError, SampleStore, StoredPoint, codec};
use crate::UnixMicros;
use crate::ids::TestId;
use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, ErrorKind, FromRedisValue, IntoConnectionInfo as _, Pipeline, RedisError,
    RedisResult, Script, ServerErrorKind,
};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use time::Date;

/// Commands in one pipeline: enough to hide the network, few enough for the time limit.
const BATCH: usize = 500;
/// The library's own limit of 500 ms is less than a busy server needs for a batch.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// 1970-01-01 as a Julian day number.
const EPOCH_JULIAN: i64 = 2_440_588;

/// Samples in Redis or Valkey.
///
/// A chunk that is sent twice because the connection was lost may be answered as a duplicate of itself.
///
/// Holds one multiplexed connection, made at the first call and again after it was lost. The
/// library's connection manager was rejected: a connect that fails with anything but an I/O error
/// (a wrong password, say) is remembered by it for ever.
pub struct RedisSamples {
    client: redis::Client,
    link: Mutex<Link>,
    script: Script,
    retention: Retention,
    prefix: String,
    /// What its settings lack was said.
    warned: AtomicBool,
}

#[derive(Default)]
struct Link {
    /// Told apart, so that a late failure of an old connection does not drop its successor.
    generation: u64,
    connection: Option<MultiplexedConnection>,
}

impl std::fmt::Debug for RedisSamples {
    /// Says where, never with what password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisSamples")
            .field("address", &self.address())
            .field("prefix", &self.prefix)
            .field("retention", &self.retention)
            .finish_non_exhaustive()
    }
}

impl RedisSamples {
    /// Samples in the server at `url` (`redis://` or `rediss://`), under keys that start with `prefix`
    /// where farms share a server. Connects at the first call, not here; refuses only a wrong address.
    pub fn open(url: &str, retention: Retention, prefix: Option<&str>) -> Result<Self, SampleError> {
        let wrong = |error: RedisError| SampleError::Refused(format!("the address of the server: {error}"));
        let info = url.into_connection_info().map_err(wrong)?;
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let prefix = prefix.unwrap_or_default();
        if prefix.contains(['{', '}']) {
            return Err(SampleError::Refused(format!("the key prefix `{prefix}` has braces")));
        }
        Ok(Self {
            client: redis::Client::open(info).map_err(wrong)?,
            link: Mutex::default(),
            script: Script::new(include_str!("append.lua")),
            retention,
            prefix: prefix.to_owned(),
            warned: AtomicBool::new(false),
        })
    }

    fn address(&self) -> String {
        self.client.get_connection_info().addr().to_string()
    }

    /// The pack of a series and day.
    fn key(&self, series: [u8; 8], day: i64) -> String {
        format!("{}ff2:{{{}}}:{}", self.prefix, hex::encode(series), compact_date(day))
    }

    /// Where version 0.1 kept the points of a series and day.
    fn old_key(&self, series: [u8; 8], day: i64) -> String {
        format!("{}ff1:{{{}}}:r:{}", self.prefix, hex::encode(series), compact_date(day))
    }

    /// The connection, its generation, and whether it was there before.
    async fn connection(&self) -> RedisResult<(MultiplexedConnection, u64, Reused)> {
        {
            let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(connection) = &link.connection {
                return Ok((connection.clone(), link.generation, Reused::Yes));
            }
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        link.generation += 1;
        link.connection = Some(connection.clone());
        Ok((connection, link.generation, Reused::No))
    }

    fn forget(&self, generation: u64) {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if link.generation == generation {
            link.connection = None;
        }
    }

    /// Sends a pipeline; answers with one result per command. Sends it again, once, where a connection
    /// from before turns out to be lost: all our commands are idempotent.
    async fn send<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<Vec<RedisResult<T>>, SampleError> {
        let mut sent_before = false;
        loop {
            let (mut connection, generation, reused) =
                self.connection().await.map_err(|error| self.sample_error(&error))?;
            let error = match pipeline.query_async(&mut connection).await {
                Ok(answers) => return Ok(answers),
                Err(error) => error,
            };
            if error.is_io_error() {
                self.forget(generation);
            }
            if sent_before || reused == Reused::No || !error.is_connection_dropped() {
                return Err(self.sample_error(&error));
            }
            sent_before = true;
        }
    }

    /// Sends a pipeline of reads, none of which may fail.
    async fn read<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<Vec<T>, SampleError> {
        let answers = self.send::<T>(pipeline).await?;
        answers.into_iter().map(|answer| answer.map_err(|error| self.sample_error(&error))).collect()
    }

    async fn load_script(&self) -> Result<(), SampleError> {
        let mut pipeline = pipeline();
        pipeline.cmd("SCRIPT").arg("LOAD").arg(include_str!("append.lua"));
        self.read::<String>(&pipeline).await.map(drop)
    }

    /// The command that appends one chunk.
    fn add_append(&self, pipeline: &mut Pipeline, chunk: &codec::Prepared) {
        let keep = u64::try_from(self.retention.points.as_millis()).unwrap_or(u64::MAX);
        pipeline
            .cmd("EVALSHA")
            .arg(self.script.get_hash())
            .arg(1)
            .arg(self.key(chunk.series, chunk.day))
            .arg(&chunk.name[..])
            .arg(&chunk.packed[..])
            .arg(&[codec::LAYOUT][..])
            .arg(keep.clamp(1, MAX_KEEP_MILLIS));
    }

    async fn append_batch(&self, batch: &[codec::Prepared]) -> Result<Vec<Appended>, SampleError> {
        let mut appended: Vec<Option<Appended>> = vec![None; batch.len()];
        // A server forgets scripts when it restarts; twice within one batch is not bad luck.
        for _ in 0..3 {
            let waiting: Vec<usize> = (0..batch.len()).filter(|&at| appended[at].is_none()).collect();
            let mut pipeline = pipeline();
            for &at in &waiting {
                self.add_append(&mut pipeline, &batch[at]);
            }
            let mut script_missing = false;
            for (at, answer) in waiting.into_iter().zip(self.send::<u8>(&pipeline).await?) {
                match answer {
                    Ok(0) => appended[at] = Some(Appended::Duplicate),
                    Ok(_) => appended[at] = Some(Appended::New),
                    Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                        script_missing = true
                    }
                    Err(error) => return Err(self.sample_error(&error)),
                }
            }
            if !script_missing {
                return Ok(appended.into_iter().map(|one| one.expect("every chunk was answered")).collect());
            }
            self.load_script().await?;
        }
        Err(SampleError::Unreachable(format!("{} keeps forgetting the append script", self.address())))
    }

    fn sample_error(&self, error: &RedisError) -> SampleError {
        let text = format!("{}: {error}", self.address());
        match (error.kind(), error.code()) {
            (_, Some("OOM" | "MISCONF")) => SampleError::Full(text),
            (ErrorKind::Parse | ErrorKind::UnexpectedReturnType, _) | (_, Some("WRONGTYPE" | "ERR")) => {
                SampleError::Damaged(text)
            }
            (ErrorKind::InvalidClientConfig, _) => SampleError::Refused(text),
            _ if error.is_cluster_error() => SampleError::Refused(text),
            _ => SampleError::Unreachable(text),
        }
    }
}

/// Some 3,000 years: keeps the server's arithmetic from overflowing.
const MAX_KEEP_MILLIS: u64 = 100_000_000_000_000;

#[derive(PartialEq, Eq)]
enum Reused {
    Yes,
    No,
}

#[async_trait]
impl SampleStore for RedisSamples {
    async fn check(&self) -> Result<(), SampleError> {
        let mut pipeline = pipeline();
        pipeline.cmd("INFO").arg("server");
        let info: String = self.read(&pipeline).await?.pop().unwrap_or_default();
        verify_server(&self.address(), &info)?;
        self.load_script().await?;

        // Who asks again knows it.
        if self.warned.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let mut pipeline = self::pipeline();
        pipeline.cmd("CONFIG").arg("GET").arg("maxmemory-policy").arg("appendonly");
        let settings = self.send::<HashMap<String, String>>(&pipeline).await?.pop();
        for warning in setting_warnings(settings.and_then(Result::ok)) {
            tracing::warn!("sample store {}: {warning}", self.address());
        }
        Ok(())
    }

    async fn append(&self, chunks: &[Chunk]) -> Result<Vec<Appended>, SampleError> {
        let prepared = chunks.iter().map(codec::prepare).collect::<Result<Vec<_>, _>>()?;
        let mut appended = Vec::with_capacity(prepared.len());
        for batch in prepared.chunks(BATCH) {
            appended.extend(self.append_batch(batch).await?);
        }
        Ok(appended)
    }

    async fn points(
        &self,
        project: &str,
        test: &TestId,
        from: UnixMicros,
        to: UnixMicros,
    ) -> Result<Vec<StoredPoint>, SampleError> {
        let series = codec::series(project, test);
        let mut points = Vec::new();
        for days in batches(codec::days(from, to)) {
            points.extend(self.days_of(&[series], days).await?.pop().unwrap_or_default());
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
        let mut all = Vec::with_capacity(tests.len());
        for tests in tests.chunks(BATCH) {
            let series: Vec<[u8; 8]> = tests.iter().map(|test| codec::series(project, test)).collect();
            all.extend(self.days_of(&series, day..day + 1).await?);
        }
        all.iter_mut().for_each(|points| codec::sort_stored(points));
        Ok(all)
    }
}

impl RedisSamples {
    /// The points of each series on these days, in no order.
    async fn days_of(
        &self,
        series: &[[u8; 8]],
        days: Range<i64>,
    ) -> Result<Vec<Vec<StoredPoint>>, SampleError> {
        let places: Vec<(usize, [u8; 8], i64)> = series
            .iter()
            .enumerate()
            .flat_map(|(at, series)| days.clone().map(move |day| (at, *series, day)))
            .collect();
        let mut found = vec![Vec::new(); series.len()];
        if places.is_empty() {
            return Ok(found);
        }
        let (mut packs, mut old) = (pipeline(), pipeline());
        for (_, series, day) in &places {
            packs.cmd("GET").arg(self.key(*series, *day));
            old.cmd("HVALS").arg(self.old_key(*series, *day));
        }
        let packs = self.read::<Option<Vec<u8>>>(&packs).await?;
        let old = self.read::<Vec<Vec<u8>>>(&old).await?;
        for (((at, _, day), pack), chunks) in places.into_iter().zip(packs).zip(old) {
            if let Some(pack) = pack {
                found[at].extend(codec::unpack(day, &pack)?);
            }
            for chunk in chunks {
                found[at].extend(codec::unpack_v1(day, &chunk)?);
            }
        }
        Ok(found)
    }
}

/// A pipeline that answers each command for itself.
fn pipeline() -> Pipeline {
    let mut pipeline = redis::pipe();
    pipeline.ignore_errors();
    pipeline
}

fn batches(days: Range<i64>) -> impl Iterator<Item = Range<i64>> {
    let end = days.end;
    days.step_by(BATCH).map(move |start| start..end.min(start + BATCH as i64))
}

fn date_of(day: i64) -> Date {
    let julian = i32::try_from(day + EPOCH_JULIAN).expect("days are within 1970 and 2099");
    Date::from_julian_day(julian).expect("days are within 1970 and 2099")
}

fn compact_date(day: i64) -> String {
    let date = date_of(day);
    format!("{:04}{:02}{:02}", date.year(), u8::from(date.month()), date.day())
}

/// Judges what `INFO server` says. Valkey reports the Redis version that it is compatible with.
fn verify_server(address: &str, info: &str) -> Result<(), SampleError> {
    let setting =
        |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let version = setting("redis_version").unwrap_or("unknown");
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < 7) {
        return Err(SampleError::Refused(format!(
            "{address} has version {version}, and 7.0 or newer is needed"
        )));
    }
    if setting("redis_mode") == Some("cluster") {
        return Err(SampleError::Refused(format!("{address} is a cluster, and one server is needed")));
    }
    Ok(())
}

/// What an operator should know of settings that endanger history; `None` where reading them is forbidden.
fn setting_warnings(settings: Option<HashMap<String, String>>) -> Vec<String> {
    let Some(settings) = settings else {
        return vec!["cannot read its settings; see to it that maxmemory-policy is noeviction".to_owned()];
    };
    let mut warnings = Vec::new();
    if let Some(policy) = settings.get("maxmemory-policy")
        && policy != "noeviction"
    {
        warnings
            .push(format!("maxmemory-policy is {policy}, which deletes history silently; set noeviction"));
    }
    if settings.get("appendonly").is_some_and(|on| on == "no") {
        warnings.push("appendonly is off, so a restart loses samples; set appendonly yes".to_owned());
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_spelled_as_dates() {
        assert_eq!(compact_date(0), "19700101");
        assert_eq!(compact_date(20_512), "20260228");
    }

    #[test]
    fn batches_cover_the_days_once() {
        let days: Vec<i64> = batches(3..1_200).flatten().collect();
        assert_eq!(days, (3..1_200).collect::<Vec<_>>());
    }

    #[test]
    fn servers_are_judged_by_version_and_mode() {
        let check = |info: &str, good: bool| assert_eq!(verify_server("s", info).is_ok(), good, "{info}");
        check("# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n", true);
        check("server_name:valkey\r\nredis_version:7.2.4\r\nvalkey_version:8.0.0\r\n", true);
        check("redis_version:6.2.1\r\nredis_mode:standalone\r\n", false);
        check("redis_version:7.4.0\r\nredis_mode:cluster\r\n", false);
        check("", false);
    }

    #[test]
    fn eviction_is_warned_about() {
        let settings = |policy: &str, aof: &str| {
            Some(HashMap::from([
                ("maxmemory-policy".to_owned(), policy.to_owned()),
                ("appendonly".to_owned(), aof.to_owned()),
            ]))
        };
        assert!(setting_warnings(settings("noeviction", "yes")).is_empty());
        assert_eq!(setting_warnings(settings("allkeys-lru", "no")).len(), 2);
        assert_eq!(setting_warnings(None).len(), 1);
    }

    #[tokio::test]
    async fn an_absent_server_is_unreachable_and_its_password_stays_secret() {
        let store = RedisSamples::open("redis://u:secret@127.0.0.1:1/", Retention::default(), None).unwrap();
        let error = store.check().await.unwrap_err();
        assert!(matches!(error, SampleError::Unreachable(_)), "{error}");
        assert!(!format!("{error} {error:?} {store:?}").contains("secret"));
    }

    #[test]
    fn wrong_addresses_and_prefixes_are_refused() {
        let refused = |url, prefix| {
            let opened = RedisSamples::open(url, Retention::default(), prefix);
            assert!(matches!(opened, Err(SampleError::Refused(_))), "{opened:?}");
        };
        refused("not an address", None);
        refused("redis://127.0.0.1/", Some("a{b}"));
    }
}
