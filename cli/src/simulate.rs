//! `flakefarm simulate`: the bench, from the command line. What is simulated is pure; clocks, files
//! and this process's memory are read here.

use crate::args::{SimulateArgs, SimulationFormat};
use crate::exit::{Complaint, Exit};
use crate::output;
use flakefarm_coordinator::plan::{self, Confidence, Guarantee, History, Ledger, Question, Rate};
use flakefarm_coordinator::simulate::bench::{self, Settings};
use flakefarm_coordinator::simulate::checks::{self, Held};
use flakefarm_coordinator::simulate::farm::Weather;
use flakefarm_coordinator::simulate::population::Population;
use flakefarm_coordinator::simulate::{plot, text};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

/// Tests that first sweeps are to have together: enough for a thousand flaky ones.
const POOLED_TESTS: usize = 40_000;

/// Simulates and prints. Exits with 1 if a claim does not hold.
pub(crate) fn simulate(args: &SimulateArgs) -> Result<Exit, Complaint> {
    let settings = settings(args)?;
    if args.plan_only {
        return plan_only(&settings, args.format);
    }
    let mut say = |what: &str| eprintln!("{what}");
    let found = bench::run(&settings, &mut plan::plan, &mut say)
        .map_err(|error| Complaint::farm(format!("the simulation came to a halt: {error}")))?;
    match args.format {
        SimulationFormat::Human => output::print(&text::render(&found))?,
        SimulationFormat::Json => {
            let value = serde_json::json!({ "bench": found, "checks": checks::checks(&found) });
            output::print(&format!("{value:#}\n"))?;
        }
    }
    if let Some(directory) = &args.output {
        let unwritable = |error: std::io::Error| {
            Complaint::new(Exit::FarmFailed, format!("cannot write to {}: {error}", directory.display()))
                .hint("--output takes a directory that can be made or written to")
        };
        std::fs::create_dir_all(directory).map_err(unwritable)?;
        for (name, picture) in plot::plots(&found) {
            std::fs::write(directory.join(name), picture).map_err(unwritable)?;
            eprintln!("wrote {}", directory.join(name).display());
        }
    }
    let all = checks::checks(&found).iter().all(|check| check.held == Held::Yes);
    Ok(if all { Exit::Clean } else { Exit::GateFailed })
}

fn settings(args: &SimulateArgs) -> Result<Settings, Complaint> {
    if args.tests < 2 {
        return Err(Complaint::usage("a suite of fewer than 2 tests shows nothing").hint("--tests 1000"));
    }
    let share = |name: &str, value: f64| {
        if (0.0..=0.5).contains(&value) {
            Ok(value)
        } else {
            Err(Complaint::usage(format!("--{name} {value} is not possible"))
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
fn plan_only(settings: &Settings, format: SimulationFormat) -> Result<Exit, Complaint> {
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
            .map_err(|error| Complaint::farm(format!("the simulation came to a halt: {error}")))?;
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
    match format {
        SimulationFormat::Json => {
            output::print(&format!("{:#}\n", serde_json::json!({ "planning": rows })))?;
        }
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
            output::print(&table)?;
        }
    }
    Ok(Exit::Clean)
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
