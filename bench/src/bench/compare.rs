//! Rounds: each way in turn, for a few seconds, again and again, so that what disturbs the machine
//! disturbs all of them.

use super::meter::{Cpu, MemoryWatch};
use super::report::{Row, Unavailable};
use super::stats::{Spread, quantile_of};
use super::ways::{Ran, Stage, Way};
use flakefarm_shared::SandboxLevel;
use flakefarm_worker::sandbox::INTERPRETERS;
use futures::future::{join_all, try_join_all};
use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) rounds: u32,
    /// Of each way in each round.
    pub(crate) slot: Duration,
    /// Attempts at once.
    pub(crate) lanes: NonZeroU16,
}

/// What one way did in one round.
struct Slot {
    per_second: f64,
    cpu_seconds: f64,
    peak_mib: f64,
    seconds: Vec<f64>,
    attempts: u32,
}

/// Runs all ways and says what each did, or why it could not.
pub(crate) async fn compare(
    stage: &Stage<'_>,
    payload: &str,
    ways: &[Way],
    effort: Effort,
    cpu: &Cpu,
    say: impl Fn(&str),
) -> (Vec<Row>, Vec<Unavailable>) {
    let mut slots: BTreeMap<Way, Vec<Slot>> = BTreeMap::new();
    let mut unavailable = Vec::new();
    let mut usable = Vec::new();
    for way in ways {
        match warm_up(stage, *way, effort).await {
            Ok(()) => usable.push(*way),
            Err(why) => unavailable.push(Unavailable { payload: payload.to_owned(), way: *way, why }),
        }
    }
    for round in 0..effort.rounds {
        usable.retain(|way| !unavailable.iter().any(|failed: &Unavailable| failed.way == *way));
        for way in &usable {
            say(&format!("{payload}: round {} of {}, {way}", round + 1, effort.rounds));
            match slot(stage, *way, effort, cpu).await {
                Ok(slot) => slots.entry(*way).or_default().push(slot),
                Err(why) => {
                    slots.remove(way);
                    unavailable.push(Unavailable { payload: payload.to_owned(), way: *way, why });
                }
            }
        }
    }
    let reference = slots.get(&Way::DockerRun).and_then(|slots| {
        let (rate, cpu) = (rate(slots)?, cpu_seconds(slots)?);
        Some(Reference { per_second: rate.median, cpu_seconds: cpu.median })
    });
    let rows = slots.iter().filter_map(|(way, slots)| row(payload, *way, slots, reference)).collect();
    (rows, unavailable)
}

/// Before it counts: caches are warm, and nests are open with all their interpreters, as they are for all
/// but the first attempts of a job. The whole sweeps include what this costs.
async fn warm_up(stage: &Stage<'_>, way: Way, effort: Effort) -> Result<(), String> {
    stage.run(way).await?;
    if let Way::Level(level) = way {
        stage.as_jobs_begin(level, effort.lanes);
        for _ in 0..INTERPRETERS {
            try_join_all((0..effort.lanes.get()).map(|_| stage.run(way))).await?;
        }
    }
    Ok(())
}

async fn slot(stage: &Stage<'_>, way: Way, effort: Effort, cpu: &Cpu) -> Result<Slot, String> {
    let memory = MemoryWatch::start();
    let cpu_before = cpu.seconds();
    let begun = Instant::now();
    let lane = async || {
        let mut ran: Vec<Ran> = Vec::new();
        let mut turn = Some(stage.number());
        while let Some(number) = turn {
            turn = (begun.elapsed() < effort.slot).then(|| stage.number());
            ran.push(stage.run_in_turn(way, number, turn).await?);
        }
        Ok::<_, String>(ran)
    };
    let lanes = join_all((0..effort.lanes.get()).map(|_| lane())).await;
    let elapsed = begun.elapsed().as_secs_f64();
    // Shims and clean-up end a moment after the attempt they served.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let cpu_seconds = cpu.seconds() - cpu_before;
    let mut seconds = Vec::new();
    let mut attempts = 0;
    for lane in lanes {
        for ran in lane? {
            attempts += ran.attempts;
            seconds.extend(ran.seconds);
        }
    }
    Ok(Slot {
        per_second: f64::from(attempts) / elapsed,
        cpu_seconds,
        peak_mib: memory.peak_mib(),
        seconds,
        attempts,
    })
}

/// What the loop of `docker run` did.
#[derive(Debug, Clone, Copy)]
struct Reference {
    per_second: f64,
    cpu_seconds: f64,
}

/// Per attempt.
fn cpu_seconds(slots: &[Slot]) -> Option<Spread> {
    let each = slots.iter().map(|slot| slot.cpu_seconds / f64::from(slot.attempts.max(1)));
    Spread::of(&each.collect::<Vec<_>>())
}

fn rate(slots: &[Slot]) -> Option<Spread> {
    Spread::of(&slots.iter().map(|slot| slot.per_second).collect::<Vec<_>>())
}

fn row(payload: &str, way: Way, slots: &[Slot], reference: Option<Reference>) -> Option<Row> {
    let per_second = rate(slots)?;
    let seconds: Vec<f64> = slots.iter().flat_map(|slot| slot.seconds.iter().copied()).collect();
    let cpu = cpu_seconds(slots)?;
    let peaks: Vec<f64> = slots.iter().map(|slot| slot.peak_mib).collect();
    Some(Row {
        payload: payload.to_owned(),
        way,
        attempts: slots.iter().map(|slot| slot.attempts).sum(),
        per_second,
        times_docker_run: reference.map(|reference| per_second.median / reference.per_second),
        cpu_seconds: cpu,
        cpu_times_docker_run: reference.map(|reference| reference.cpu_seconds / cpu.median),
        p50_ms: quantile_of(&seconds, 0.5).map(|seconds| seconds * 1e3),
        p99_ms: quantile_of(&seconds, 0.99).map(|seconds| seconds * 1e3),
        peak_mib: Spread::of(&peaks)?.median,
        isolated: match way {
            Way::DockerRun
            | Way::Level(SandboxLevel::Container | SandboxLevel::Nested | SandboxLevel::Host) => {
                "each attempt"
            }
            Way::Level(SandboxLevel::Forked) => "each attempt, after import",
            Way::ContainerPerBatch => "each batch",
            Way::BareProcess | Way::Level(SandboxLevel::Process) => "processes only",
            Way::InProcess => "not at all",
        },
    })
}
