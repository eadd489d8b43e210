//! `flakefarm simulate`: the bench, from the command line. What is simulated is pure; clocks, files
//! and this process's memory are read here.

use crate::{Measured, Unmeasured};
use clap::{Args, ValueEnum};
use flakefarm_coordinator::plan::{self, Confidence, Guarantee, History, Ledger, Question, Rate};
use flakefarm_coordinator::simulate::bench::{self, Settings};
use flakefarm_coordinator::simulate::checks::{self, Held};
use flakefarm_coordinator::simulate::farm::Weather;
use flakefarm_coordinator::simulate::population::Population;
use flakefarm_coordinator::simulate::{plot, text};
use flakefarm_project::settings::counted;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Tests that first sweeps are to have together: enough for a thousand flaky ones.
const POOLED_TESTS: usize = 40_000;

/// `flakefarm simulate`
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// Tests of the suite
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    tests: usize,
    /// Where all randomness comes from: a seed names a simulation
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// First sweeps, each of another suite, that are added up [default: 40,000 tests' worth, at most 40]
    #[arg(long, value_name = "N", value_parser = counted::<NonZeroU32>)]
    sweeps: Option<NonZeroU32>,
    /// Nights of history
    #[arg(long, value_name = "N", default_value_t = 30)]
    nights: u32,
    /// Share of the tests that change before each night
    #[arg(long, value_name = "P", default_value = "5%", value_parser = share)]
    changed: f64,
    /// Share of attempts that end with an infrastructure error, where the farm has errors
    #[arg(long, value_name = "P", default_value = "5%", value_parser = share)]
    infrastructure_errors: f64,
    /// What the confidence refers to: each test, or the suite [default: both]
    #[arg(long, value_name = "test|suite", value_parser = guarantee)]
    guarantee: Option<Guarantee>,
    /// Find every test that flakes at this rate or above [default: 5%]
    #[arg(long, value_name = "P", value_parser = rate)]
    max_flake_rate: Option<Rate>,
    /// How sure verdicts are to be [default: 95%]
    #[arg(long, value_name = "P", value_parser = confidence)]
    confidence: Option<Confidence>,
    /// Jobs at once [default: by the number of tests]
    #[arg(long, value_name = "N", value_parser = counted::<NonZeroU16>)]
    workers: Option<NonZeroU16>,
    /// Only how long planning takes, and how much memory
    #[arg(long)]
    plan_only: bool,
    /// How to print it
    #[arg(long, value_enum, default_value_t = SimulationFormat::Human)]
    format: SimulationFormat,
    /// Write pictures (SVG) into this directory
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SimulationFormat {
    /// Tables for people
    Human,
    /// All numbers
    Json,
}

/// `0.05` or `5%`.
fn share(text: &str) -> Result<f64, String> {
    let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let number = number.trim().parse::<f64>().map(|number| number / scale);
    number.map_err(|_| format!("`{text}` is not a share: write 0.05 or 5%"))
}

fn rate(text: &str) -> Result<Rate, String> {
    Rate::new(share(text)?).map_err(|error| error.to_string())
}

fn confidence(text: &str) -> Result<Confidence, String> {
    Confidence::new(share(text)?).map_err(|error| error.to_string())
}

fn guarantee(text: &str) -> Result<Guarantee, String> {
    text.parse::<Guarantee>().map_err(|error| error.to_string())
}

/// Simulates; `say` is told what is being done.
///
/// # Errors
/// When options contradict each other, or pictures cannot be written.
pub fn simulate(args: &SimulateArgs, say: &dyn Fn(&str)) -> Result<Measured, Unmeasured> {
    let settings = settings(args)?;
    if args.plan_only {
        return plan_only(&settings, args.format);
    }
    let mut tell = |what: &str| say(what);
    let found = bench::run(&settings, &mut plan::plan, &mut tell)
        .map_err(|error| Unmeasured::farm(format!("the simulation came to a halt: {error}")))?;
    let text = match args.format {
        SimulationFormat::Human => text::render(&found),
        SimulationFormat::Json => {
            let value = serde_json::json!({ "bench": found, "checks": checks::checks(&found) });
            format!("{value:#}\n")
        }
    };
    if let Some(directory) = &args.output {
        let unwritable = |error: std::io::Error| {
            Unmeasured::farm(format!("cannot write to {}: {error}", directory.display()))
                .hint("--output takes a directory that can be made or written to")
        };
        std::fs::create_dir_all(directory).map_err(unwritable)?;
        for (name, picture) in plot::plots(&found) {
            std::fs::write(directory.join(name), picture).map_err(unwritable)?;
            say(&format!("wrote {}", directory.join(name).display()));
        }
    }
    let all = checks::checks(&found).iter().all(|check| check.held == Held::Yes);
    Ok(Measured { text, holds: all })
}

fn settings(args: &SimulateArgs) -> Result<Settings, Unmeasured> {
    if args.tests < 2 {
        return Err(Unmeasured::usage("a suite of fewer than 2 tests shows nothing").hint("--tests 1000"));
    }
    let share = |name: &str, value: f64| {
        if (0.0..=0.5).contains(&value) {
            Ok(value)
        } else {
            Err(Unmeasured::usage(format!("--{name} {value} is not possible"))
                .hint(format!("--{name} takes a share from 0 to 50 %")))
        }
    };
    let default_workers = (args.tests / 1_000).clamp(8, 64);
    Ok(Settings {
        tests: args.tests,
        seed: args.seed,
        sweeps: args.sweeps.map_or_else(
            || u32::try_from((POOLED_TESTS / args.tests).clamp(1, 40)).expect("at most 40"),
            |sweeps| sweeps.get(),
        ),
        nights: args.nights,
        changed: share("changed", args.changed)?,
        infrastructure_errors: share("infrastructure-errors", args.infrastructure_errors)?,
        guarantees: args.guarantee.map_or_else(|| Guarantee::ALL.to_vec(), |guarantee| vec![guarantee]),
        max_flake_rate: args.max_flake_rate.unwrap_or(Rate::DEFAULT),
        confidence: args.confidence.unwrap_or(Confidence::DEFAULT),
        workers: args.workers.unwrap_or_else(|| {
            u16::try_from(default_workers).ok().and_then(NonZeroU16::new).expect("from 8 to 64")
        }),
    })
}

/// How long planning takes and how much memory a sweep holds, at an eighth of the size, a quarter,
/// a half, and all of it; in this order, because memory is taken at its peak. One guarantee: that of
/// each test unless another is asked for, because it makes more runs.
fn plan_only(settings: &Settings, format: SimulationFormat) -> Result<Measured, Unmeasured> {
    let guarantee = settings.guarantees.first().copied().unwrap_or_default();
    let before = peak_bytes();
    let mut rows = Vec::new();
    for part in [8, 4, 2, 1] {
        let tests = (settings.tests / part).max(2);
        let population = Population::published(tests, settings.seed);
        let history = History::new(&population.ids(), &population.sources(), [], 0);
        let question = settings.question(guarantee, settings.seed);
        let mut rounds: Vec<Duration> = Vec::new();
        let mut timed = |question: &Question, ledger: &Ledger, history: &History, elapsed: Duration| {
            let began = Instant::now();
            let planned = plan::plan(question, ledger, history, elapsed);
            rounds.push(began.elapsed());
            planned
        };
        let carried = settings
            .farm(&population, Weather::CALM, settings.seed)
            .carry_out(&question, &history, &mut timed)
            .map_err(|error| Unmeasured::farm(format!("the simulation came to a halt: {error}")))?;
        rows.push(Round {
            guarantee: guarantee.word(),
            tests,
            rounds: rounds.len(),
            mean_seconds: rounds.iter().sum::<Duration>().as_secs_f64() / rounds.len() as f64,
            longest_seconds: rounds.iter().max().copied().unwrap_or_default().as_secs_f64(),
            samples: carried.ledger.samples_total(),
            bytes: peak_bytes().saturating_sub(before),
        });
    }
    let text = match format {
        SimulationFormat::Json => format!("{:#}\n", serde_json::json!({ "planning": rows })),
        SimulationFormat::Human => {
            let mut table = format!(
                "{:<10}{:>9}{:>8}{:>12}{:>15}{:>12}{:>10}{:>14}\n",
                "guarantee",
                "tests",
                "rounds",
                "mean round",
                "longest round",
                "samples",
                "memory",
                "bytes/sample"
            );
            for row in &rows {
                table.push_str(&format!(
                    "{:<10}{:>9}{:>8}{:>9.1} ms{:>12.1} ms{:>12}{:>7} MB{:>14}\n",
                    row.guarantee,
                    row.tests,
                    row.rounds,
                    row.mean_seconds * 1e3,
                    row.longest_seconds * 1e3,
                    row.samples,
                    row.bytes / 1_000_000,
                    row.bytes / row.samples.max(1),
                ));
            }
            table
        }
    };
    Ok(Measured { text, holds: true })
}

#[derive(serde::Serialize)]
struct Round {
    guarantee: &'static str,
    tests: usize,
    rounds: usize,
    mean_seconds: f64,
    longest_seconds: f64,
    samples: u64,
    bytes: u64,
}

/// The most memory this process had so far; 0 where the system does not say.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1_024
}
