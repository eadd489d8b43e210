//! `flakefarm bench --history`: whether the memory of the farm keeps up. What CI sends is read fast and in
//! flat memory, samples are small, and questions over a project of 50,000 tests, 90 days and 20 runs a day
//! are answered at once, over HTTP, on either set of stores.

mod asking;
mod project;
mod reports;
mod year;

use super::control::Addresses;
use super::meter;
use super::stores;
use crate::Unmeasured;
use flakefarm_coordinator::db::Db;
use flakefarm_coordinator::history::collect::collect_day;
use flakefarm_shared::now_micros;
use flakefarm_shared::samples::{RedisSamples, Retention, Samples, codec};
use project::Project;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long samples of a measurement stay in a server, should it not get to its end.
const SAMPLES_STAY: Duration = Duration::from_secs(3 * 3_600);

/// How large the project is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HistorySize {
    pub(crate) tests: u32,
    pub(crate) days: i64,
    pub(crate) runs_a_day: u32,
    /// Cases of the report that is ingested.
    pub(crate) cases: u32,
    /// Bytes of hostile reports.
    pub(crate) hostile: usize,
}

impl HistorySize {
    /// As the claims have it.
    pub(crate) const FULL: Self =
        Self { tests: 50_000, days: 90, runs_a_day: 20, cases: 300_000, hostile: 100_000_000 };
    /// In a minute or two.
    pub(crate) const QUICK: Self =
        Self { tests: 5_000, days: 30, runs_a_day: 20, cases: 50_000, hostile: 20_000_000 };
}

/// One figure, and what it has to be.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    pub(crate) stores: String,
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// What is claimed: at most, or at least; none: told only.
    pub(crate) claim: Option<Claim>,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Claim {
    AtMost(f64),
    AtLeast(f64),
}

impl Figure {
    pub(crate) fn holds(&self) -> bool {
        match self.claim {
            None => true,
            Some(Claim::AtMost(most)) => self.value <= most,
            Some(Claim::AtLeast(least)) => self.value >= least,
        }
    }

    pub(crate) fn cells(&self) -> Vec<String> {
        let digits = |value: f64| {
            if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
        };
        let claim = match self.claim {
            None => "-".to_owned(),
            Some(Claim::AtMost(most)) => format!("at most {}", digits(most)),
            Some(Claim::AtLeast(least)) => format!("at least {}", digits(least)),
        };
        let verdict = match (self.claim, self.holds()) {
            (None, _) => "-",
            (Some(_), true) => "yes",
            (Some(_), false) => "NO",
        };
        let value = format!("{} {}", digits(self.value), self.unit);
        vec![self.stores.clone(), self.what.clone(), value, claim, verdict.to_owned()]
    }
}

/// Figures of one set of stores.
pub(crate) struct Figures {
    stores: String,
    pub(crate) all: Vec<Figure>,
}

impl Figures {
    pub(crate) fn add(
        &mut self,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        claim: Option<Claim>,
    ) {
        self.all.push(Figure { stores: self.stores.clone(), what: what.into(), value, unit, claim });
    }
}

/// The stores under measurement.
pub(crate) struct Memory {
    pub(crate) db: Db,
    pub(crate) samples: Samples,
    /// The address of the samples server and what its keys begin with.
    redis: Option<(String, String)>,
}

impl Memory {
    async fn open(addresses: &Addresses, state: &std::path::Path) -> Result<Self, Unmeasured> {
        let database = match addresses.database.as_str() {
            "embedded:" => format!("sqlite:{}", state.join("farm.db").display()),
            url => url.to_owned(),
        };
        let db = stores::open_database(&database).await?;
        if addresses.samples == "embedded:" {
            let path = format!("embedded:{}", state.join("samples.db").display());
            return Ok(Self { db, samples: stores::open_samples(&path).await?, redis: None });
        }
        let prefix = format!("bench{}:", std::process::id());
        let samples =
            RedisSamples::open(&addresses.samples, Retention { points: SAMPLES_STAY }, Some(&prefix))?;
        Ok(Self { db, samples: Arc::new(samples), redis: Some((addresses.samples.clone(), prefix)) })
    }

    /// Bytes of the samples, as `MEMORY USAGE` counts them, and keys; none where there is no Redis.
    async fn redis_bytes(&self) -> Result<Option<(u64, usize)>, Unmeasured> {
        let Some((url, prefix)) = &self.redis else { return Ok(None) };
        let mut connection = redis::Client::open(url.as_str())?.get_multiplexed_async_connection().await?;
        let keys = keys_of(&mut connection, prefix).await?;
        let mut bytes = 0;
        for keys in keys.chunks(1_000) {
            let mut pipeline = redis::pipe();
            for key in keys {
                pipeline.cmd("MEMORY").arg("USAGE").arg(key).arg("SAMPLES").arg(0);
            }
            let usages: Vec<Option<u64>> = pipeline.query_async(&mut connection).await?;
            bytes += usages.into_iter().flatten().sum::<u64>();
        }
        Ok(Some((bytes, keys.len())))
    }

    async fn forget(&self) -> Result<(), Unmeasured> {
        let Some((url, prefix)) = &self.redis else { return Ok(()) };
        let mut connection = redis::Client::open(url.as_str())?.get_multiplexed_async_connection().await?;
        for keys in keys_of(&mut connection, prefix).await?.chunks(1_000) {
            let () = redis::cmd("UNLINK").arg(keys).query_async(&mut connection).await?;
        }
        Ok(())
    }
}

async fn keys_of(
    connection: &mut redis::aio::MultiplexedConnection,
    prefix: &str,
) -> Result<Vec<String>, Unmeasured> {
    let mut keys = Vec::new();
    let mut cursor = 0u64;
    loop {
        let (next, some): (u64, Vec<String>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(format!("{prefix}*"))
            .arg("COUNT")
            .arg(5_000)
            .query_async(connection)
            .await?;
        keys.extend(some);
        cursor = next;
        if cursor == 0 {
            return Ok(keys);
        }
    }
}

/// Measures how what is kept grows with time.
pub(crate) async fn measure_year(size: HistorySize, say: &dyn Fn(&str)) -> Result<Vec<Figure>, Unmeasured> {
    let state = tempfile::Builder::new().prefix("flakefarm-bench-").tempdir()?;
    let mut figures = Figures { stores: "embedded".to_owned(), all: Vec::new() };
    year::measure(size, state.path(), &mut figures, say).await?;
    Ok(figures.all)
}

/// Measures one set of stores.
pub(crate) async fn measure(
    addresses: &Addresses,
    size: HistorySize,
    say: &dyn Fn(&str),
) -> Result<Vec<Figure>, Unmeasured> {
    let state = tempfile::Builder::new().prefix("flakefarm-bench-").tempdir()?;
    let mut figures = Figures { stores: addresses.name.clone(), all: Vec::new() };
    let memory = Memory::open(addresses, state.path()).await?;
    let measured = of_memory(&memory, size, state.path(), &mut figures, say).await;
    memory.forget().await?;
    memory.db.close().await;
    measured.map(|()| figures.all)
}

async fn of_memory(
    memory: &Memory,
    size: HistorySize,
    state: &std::path::Path,
    figures: &mut Figures,
    say: &dyn Fn(&str),
) -> Result<(), Unmeasured> {
    say("a report of CI's");
    reports::measure(memory, size, state, figures).await?;
    let project = Project::new(size, now_micros());
    say(&format!("{} tests, {} days: recording", size.tests, size.days));
    let begun = Instant::now();
    project.record(&memory.db).await?;
    project.record_points(&memory.samples).await?;
    figures.add("recording what follows", begun.elapsed().as_secs_f64(), "s", None);
    say("a day's points");
    let before = memory.redis_bytes().await?;
    let begun = Instant::now();
    let samples = project.record_day(&memory.samples).await?;
    figures.add(
        "samples a second, one per chunk",
        samples as f64 / begun.elapsed().as_secs_f64(),
        "/s",
        None,
    );
    if let (Some((before, _)), Some((after, keys))) = (before, memory.redis_bytes().await?) {
        let per_sample = after.saturating_sub(before) as f64 / samples as f64;
        let what = format!("a sample, of {samples} (MEMORY USAGE of {keys} keys)");
        figures.add(what, per_sample, "bytes", Some(Claim::AtMost(40.0)));
    }
    say("the night: summing up a day");
    let resident = meter::ResidentPeak::start();
    let begun = Instant::now();
    let note = collect_day(&memory.db, memory.samples.as_ref(), project::NAME, project.night(), now_micros())
        .await?;
    figures.add(
        format!("summing up a day of {} samples", note.points),
        begun.elapsed().as_secs_f64(),
        "s",
        Some(Claim::AtMost(60.0)),
    );
    figures.add("memory while summing up", resident.peak_mib(), "MiB", None);
    say("questions over HTTP");
    asking::measure(memory, &project, state, figures).await?;
    figures.add("the database", memory.db.size().await? as f64 / 1048576.0, "MiB", None);
    Ok(())
}

/// The first day of the last `days` days before today.
pub(crate) fn first_day(now: i64, days: i64) -> i64 {
    codec::day_of(now) - days
}
