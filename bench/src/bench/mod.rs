//! `flakefarm bench`: what attempts cost at each level of isolation and in other people's ways, and
//! whether everything around them keeps up. In one run, in interleaved rounds, on one machine.

mod compare;
mod control;
mod growth;
mod history;
mod meter;
mod payload;
mod plot;
mod report;
mod stats;
mod stores;
mod ways;
mod whole;

use crate::{Measured, Unmeasured};
use clap::{Args, ValueEnum};
use compare::Effort;
use control::{Addresses, Size};
use flakefarm_project::settings::counted;
use flakefarm_shared::WorkerId;
use flakefarm_worker::sandbox::{DockerSandbox, Engine, EngineUnavailable, RuntimeChoice};
use growth::{Growth, Idle};
use history::HistorySize;
use meter::Cpu;
use payload::Payload;
use report::{BenchReport, Machine, PoolLatency, SCHEMA, Style};
use stats::quantile_of;
use std::io::IsTerminal;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ways::{Stage, Way};

/// `flakefarm bench`
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Only planner, queue, workers and stores, around attempts that take no time; with --database,
    /// --queue and --samples on those services, too
    #[arg(long)]
    control_plane: bool,
    /// Count nothing for /metrics while it measures: to see, by turns, what counting costs
    #[arg(long)]
    uncounted: bool,
    /// Only history: what CI sends, samples, and questions over a project of 50,000 tests and 90 days; with
    /// --database, --queue and --samples on those services, too (a database of its own). Needs 2 GB for each
    #[arg(long, conflicts_with_all = ["control_plane", "growth", "project"])]
    history: bool,
    /// With --history: so many tests instead
    #[arg(long, value_name = "N", requires = "history", value_parser = counted::<NonZeroU32>)]
    tests: Option<NonZeroU32>,
    /// With --history: only how what is kept grows in 500 days by a clock that is passed in, on embedded
    /// stores. Needs 12 GB and most of an hour at full size
    #[arg(long, requires = "history")]
    year: bool,
    /// Two minutes instead of twenty: fewer and shorter rounds, no whole sweep
    #[arg(long)]
    quick: bool,
    /// Also a real project's suite
    #[arg(long, value_name = "PATH")]
    project: Option<PathBuf>,
    /// Also how costs grow with images, containers, attempts and tests; slow, needs 3 GB
    #[arg(long)]
    growth: bool,
    /// Attempts at once [default: the number of cores]
    #[arg(long, value_name = "N", value_parser = counted::<NonZeroU16>)]
    workers: Option<NonZeroU16>,
    /// Rounds of each way [default: 5, with --quick 2]
    #[arg(long, value_name = "N", value_parser = counted::<NonZeroU32>)]
    rounds: Option<NonZeroU32>,
    /// Container runtime: auto, default, or a name that the engine knows (crun, runsc, kata)
    #[arg(long, value_name = "NAME", env = "FLAKEFARM_RUNTIME", default_value = "auto")]
    runtime: RuntimeChoice,
    /// Interpreter with pytest on this machine, for bare processes
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: String,
    /// Only these ways, beside the loop of `docker run`, and no whole sweep: docker-run,
    /// container-per-batch, bare-process, in-process, or a level of isolation [default: all]
    #[arg(long, value_name = "WAY", value_delimiter = ',')]
    ways: Vec<Way>,
    /// Levels of isolation for the whole sweep
    #[arg(long, value_name = "LEVEL", value_delimiter = ',', default_value = "container,auto")]
    sweeps: Vec<String>,
    /// Count the CPU time of this cgroup, which holds the engine and this program, not the machine's
    #[arg(long, value_name = "DIR")]
    cpu_cgroup: Option<PathBuf>,
    /// How the results are written
    #[arg(long, value_enum, default_value_t = BenchFormat::Human)]
    format: BenchFormat,
    /// Also write bench.json, bench.md and pictures here
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    #[command(flatten)]
    stores: StoreArgs,
}

/// Services that the control plane is measured on beside the embedded stores.
#[derive(Debug, Args)]
struct StoreArgs {
    /// postgres://…
    #[arg(long, value_name = "URL", env = "FLAKEFARM_DATABASE", hide_env_values = true)]
    database: Option<String>,
    /// amqp://…
    #[arg(long, value_name = "URL", env = "FLAKEFARM_QUEUE", hide_env_values = true)]
    queue: Option<String>,
    /// redis://…
    #[arg(long, value_name = "URL", env = "FLAKEFARM_SAMPLES", hide_env_values = true)]
    samples: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BenchFormat {
    /// Tables for people
    Human,
    /// The versioned JSON document
    Json,
    /// Markdown tables
    Markdown,
}

/// Measures; `say` is told what is being done, for people who wait.
///
/// # Errors
/// When the engine or a store cannot be had, or options contradict each other.
pub async fn bench(args: &BenchArgs, say: &(dyn Fn(&str) + Sync)) -> Result<Measured, Unmeasured> {
    let say = &Say(say);
    if args.uncounted {
        flakefarm_shared::metrics::stop_counting();
    }
    let stores = all_stores(&args.stores)?;
    let engine = if args.control_plane || args.history { None } else { Some(connect(args).await?) };
    let mut report = BenchReport {
        schema: SCHEMA,
        machine: machine(args, engine.as_ref()).await?,
        rows: Vec::new(),
        unavailable: Vec::new(),
        pool: None,
        sweeps: Vec::new(),
        control_plane: Vec::new(),
        growth: Vec::new(),
        history: Vec::new(),
    };
    if args.history {
        let mut size = if args.quick { HistorySize::QUICK } else { HistorySize::FULL };
        size.tests = args.tests.map_or(size.tests, NonZeroU32::get);
        if args.year {
            let doing = |doing: &str| say.say(doing);
            report.history = Box::pin(history::measure_year(size, &doing)).await?;
        }
        for addresses in stores.iter().filter(|_| !args.year) {
            let doing = |doing: &str| say.say(&format!("{}: {doing}", addresses.name));
            report.history.extend(Box::pin(history::measure(addresses, size, &doing)).await?);
        }
        let holds = report.history.iter().all(history::Figure::holds);
        return Ok(Measured { text: write(args, &report)?, holds });
    }
    if let Some(engine) = &engine {
        Box::pin(attempts(args, engine, &mut report, say)).await?;
        // Which one works is known once it has started something.
        report.machine.runtime = engine.0.runtime().await?;
    }
    for addresses in &stores {
        control::refuse_busy(addresses).await?;
        for workers in [1, 8] {
            say.say(&format!("control plane: {}, {workers} workers", addresses.name));
            report.control_plane.push(control::measure(addresses, workers, control_size(args)).await?);
        }
    }
    if args.growth {
        say.say("growth with attempts and tests");
        let most_tests = if args.quick { 10_000 } else { 100_000 };
        report.growth.extend(growth::scripted(&stores[0], most_tests).await?);
    }
    Ok(Measured { text: write(args, &report)?, holds: true })
}

/// Progress, for people who wait; elsewhere it is logged.
struct Say<'a>(&'a (dyn Fn(&str) + Sync));

impl Say<'_> {
    fn say(&self, doing: &str) {
        if std::io::stderr().is_terminal() {
            (self.0)(doing);
        } else {
            tracing::info!("{doing}");
        }
    }
}

async fn connect(args: &BenchArgs) -> Result<(DockerSandbox, WorkerId), Unmeasured> {
    let worker = WorkerId(format!("bench-{}", std::process::id()));
    let unavailable = |error: EngineUnavailable| Unmeasured::of(&error).hint(error.hint().to_string());
    let engine = Engine::connect(worker.clone()).map_err(unavailable)?;
    engine.check().await.map_err(unavailable)?;
    engine.check_runtime(&args.runtime).await.map_err(unavailable)?;
    let docker = DockerSandbox::with_runtime(engine, args.runtime.clone());
    Ok((docker, worker))
}

fn effort(args: &BenchArgs) -> Effort {
    let (rounds, slot) = if args.quick { (2, 1_500) } else { (5, 5_000) };
    Effort {
        rounds: args.rounds.map_or(rounds, NonZeroU32::get),
        slot: Duration::from_millis(slot),
        lanes: args.workers.unwrap_or_else(cores),
    }
}

fn ways(args: &BenchArgs) -> Vec<Way> {
    let chosen = |way: &Way| args.ways.is_empty() || args.ways.contains(way) || *way == Way::DockerRun;
    Way::all().into_iter().filter(chosen).collect()
}

fn cores() -> NonZeroU16 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(cores).ok().and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN)
}

fn control_size(args: &BenchArgs) -> Size {
    let rounds = effort(args).rounds;
    let count = |n: u32| NonZeroU32::new(n.max(1)).expect("not zero");
    let tests = count(if args.quick { 500 } else { 1_000 });
    Size { jobs: 1_000 * rounds, suite_attempts: count(50 * rounds), tests, queued: 50_000 * rounds }
}

/// The embedded stores and, if addresses are given, those.
fn all_stores(given: &StoreArgs) -> Result<Vec<Addresses>, Unmeasured> {
    let embedded = "embedded:".to_owned();
    let mut stores = vec![Addresses {
        name: "embedded".to_owned(),
        database: embedded.clone(),
        queue: embedded.clone(),
        samples: embedded,
    }];
    match (&given.database, &given.queue, &given.samples) {
        (None, None, None) => {}
        (Some(database), Some(queue), Some(samples)) => stores.push(Addresses {
            name: "RabbitMQ, Redis, PostgreSQL".to_owned(),
            database: database.clone(),
            queue: queue.clone(),
            samples: samples.clone(),
        }),
        _ => {
            return Err(Unmeasured::usage("--database, --queue and --samples belong together")
                .hint("give all three, or none for the embedded stores alone"));
        }
    }
    Ok(stores)
}

async fn machine(
    args: &BenchArgs,
    engine: Option<&(DockerSandbox, WorkerId)>,
) -> Result<Machine, Unmeasured> {
    let busy = Cpu::Machine.seconds();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let background_cores = Cpu::Machine.seconds() - busy;
    let (version, engine_in_memory) = match engine {
        Some((docker, _)) => {
            let facts = docker.engine().check().await?;
            (facts.version, meter::is_in_memory(&facts.data_root))
        }
        None => ("not used".to_owned(), false),
    };
    let effort = effort(args);
    Ok(Machine {
        cores: usize::from(cores().get()),
        kernel: kernel_version(),
        engine: version,
        runtime: "none".to_owned(),
        engine_in_memory,
        flakefarm: env!("CARGO_PKG_VERSION"),
        build: if cfg!(debug_assertions) { "debug build" } else { "release build" },
        attempts_at_once: effort.lanes.get(),
        rounds: effort.rounds,
        cpu_of: cpu(args)?.word(),
        background_cores,
    })
}

/// Its numbers, without what a distribution adds.
fn kernel_version() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.split(|sign: char| sign != '.' && !sign.is_ascii_digit()).next().unwrap_or_default().to_owned()
}

fn cpu(args: &BenchArgs) -> Result<Cpu, Unmeasured> {
    args.cpu_cgroup.as_deref().map_or(Ok(Cpu::Machine), Cpu::group)
}

/// Every way on every payload, the pool, whole sweeps, and growth of containers.
async fn attempts(
    args: &BenchArgs,
    (sandbox, worker): &(DockerSandbox, WorkerId),
    report: &mut BenchReport,
    say: &Say<'_>,
) -> Result<(), Unmeasured> {
    let (effort, cpu) = (effort(args), cpu(args)?);
    let state = tempfile::Builder::new().prefix("flakefarm-bench-").tempdir()?;
    let engine = sandbox.engine();
    let suite = Payload::suite()?;
    let mut payloads = vec![Payload::nothing()?, Payload::trivial()?];
    if !args.quick {
        payloads.push(Payload::suite()?);
    }
    payloads.extend(args.project.as_deref().map(Payload::project));
    // All of them before any is measured: what cannot be set up is better known now than in ten minutes.
    let mut stages = Vec::new();
    for payload in &payloads {
        say.say(&format!("{}: preparing", payload.name));
        stages.push(
            Stage::set(payload, engine, sandbox, state.path(), &args.python, worker.clone(), None).await?,
        );
    }
    for (payload, stage) in payloads.iter().zip(stages) {
        let (rows, unavailable) =
            compare::compare(&stage, payload.name, &ways(args), effort, &cpu, |doing| say.say(doing)).await;
        report.rows.extend(rows);
        report.unavailable.extend(unavailable);
        if report.pool.is_none() {
            say.say("containers kept ready");
            let latencies = ways::pool_latencies(&stage, sandbox, if args.quick { 8 } else { 30 }).await;
            report.pool = pool_latency(&latencies);
            if args.growth {
                let grown = Box::pin(container_growth(&stage, engine, sandbox, args, state.path(), say));
                report.growth.extend(grown.await?);
            }
        }
        stage.strike().await;
    }
    let single = report.rows.iter().find(|row| row.way == Way::DockerRun && row.payload == "one test");
    let single = single.map(|row| row.per_second.median);
    if let Some(loop_per_second) = single.filter(|_| !args.quick && args.ways.is_empty()) {
        for level in &args.sweeps {
            say.say(&format!("a whole sweep, --sandbox {level}"));
            report
                .sweeps
                .push(whole::sweep(&suite.root, &state.path().join("sweep"), level, loop_per_second).await?);
        }
    }
    sandbox.close().await;
    Ok(())
}

fn pool_latency(seconds: &[f64]) -> Option<PoolLatency> {
    Some(PoolLatency {
        attempts: seconds.len(),
        p50_ms: quantile_of(seconds, 0.5)? * 1e3,
        p99_ms: quantile_of(seconds, 0.99)? * 1e3,
    })
}

async fn container_growth(
    stage: &Stage<'_>,
    engine: &Engine,
    sandbox: &DockerSandbox,
    args: &BenchArgs,
    state: &Path,
    say: &Say<'_>,
) -> Result<Vec<Growth>, Unmeasured> {
    let mut points = Vec::new();
    let mut point = |with, of: &str, value| {
        points.push(Growth { with, of: of.to_owned(), value, unit: "ms per container" });
    };
    let payload = Payload::nothing()?;
    let base = growth::base_image(&payload.root)?;
    let mut idle = Idle::none();
    for count in [0, 100, 500] {
        say.say(&format!("growth: {count} containers that lie about"));
        idle.create(&base, count).await?;
        point("containers there", &count.to_string(), growth::container_ms(stage).await?);
    }
    idle.remove().await?;
    point("image size", "as it is", growth::container_ms(stage).await?);
    say.say("growth: an image with 2 GB more");
    let larger = growth::larger_image(&base, 2_000).await?;
    let worker = WorkerId(format!("bench-{}", std::process::id()));
    let large = Stage::set(&payload, engine, sandbox, state, &args.python, worker, Some(&larger)).await?;
    point("image size", "2 GB more", growth::container_ms(&large).await?);
    large.strike().await;
    growth::forget_image(&larger).await?;
    Ok(points)
}

fn write(args: &BenchArgs, report: &BenchReport) -> Result<String, Unmeasured> {
    let json = serde_json::to_string_pretty(report).expect("plain data serialises") + "\n";
    if let Some(directory) = &args.output {
        std::fs::create_dir_all(directory)?;
        std::fs::write(directory.join("bench.json"), &json)?;
        std::fs::write(directory.join("bench.md"), report.text(Style::Markdown))?;
        if let Some(summary) = report.summary() {
            std::fs::write(directory.join("summary.md"), summary)?;
        }
        for (name, picture) in plot::plots(report) {
            std::fs::write(directory.join(name), picture)?;
        }
    }
    Ok(match args.format {
        BenchFormat::Human => report.text(Style::Plain),
        BenchFormat::Json => json,
        BenchFormat::Markdown => report.text(Style::Markdown),
    })
}
