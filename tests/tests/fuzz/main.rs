//! Every reader of what comes from outside, fed with damaged input: seeds that are right, mutated by chance that is the
//! same in each run. None may panic, take long, or take much memory, whatever it is given.
//!
//! The suite tries a few hundred inputs of each reader; `make fuzz` tries others for as long as it is told. What fails
//! is kept in `target/fuzz` and said with the number that makes it again (`FLAKEFARM_FUZZ_SEED`).

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod mutate;
mod targets;

use flakefarm_tests::dice::Dice;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};
use targets::{TARGETS, Target};

/// Inputs of each reader in the suite.
const FEW: u64 = 300;
/// Of a thread's CPU time for one input of [`mutate::LARGEST`] bytes, in an unoptimised build.
const LONGEST: Duration = Duration::from_secs(20);
/// Of this process.
const MOST_MEMORY_KIB: u64 = 2 << 20;

/// How much of `target` is tried.
enum Effort {
    Inputs(u64),
    Until(Instant),
}

impl Effort {
    fn goes_on(&self, tried: u64) -> bool {
        match self {
            Effort::Inputs(most) => tried < *most,
            Effort::Until(end) => Instant::now() < *end,
        }
    }
}

/// CPU time of this thread so far.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0))
}

fn peak_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|size| size.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// The input that this number makes.
fn input(target: &Target, seed: u64) -> Vec<u8> {
    mutate::mutated(target.seeds, target.words, &mut Dice(seed))
}

fn try_one(target: &Target, seed: u64) {
    let bytes = input(target, seed);
    let before = cpu_time();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.read)(&bytes)));
    let spent = cpu_time().saturating_sub(before);
    let wrong = match outcome {
        Err(_) => "panics".to_owned(),
        Ok(()) if spent > LONGEST => format!("takes {spent:?} of CPU time"),
        Ok(()) if peak_kib() > MOST_MEMORY_KIB => format!("took {} MiB", peak_kib() >> 10),
        Ok(()) => return,
    };
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../fuzz");
    std::fs::create_dir_all(&kept).unwrap();
    let file = kept.join(format!("{}-{seed}", target.name));
    std::fs::write(&file, &bytes).unwrap();
    panic!(
        "`{}` {wrong}: FLAKEFARM_FUZZ_TARGET={} FLAKEFARM_FUZZ_SEED={seed}, kept in {}",
        target.name,
        target.name,
        file.display()
    );
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

#[test]
fn no_reader_of_what_comes_from_outside_breaks() {
    let only = std::env::var("FLAKEFARM_FUZZ_TARGET").ok();
    let chosen = || TARGETS.iter().filter(|target| only.as_deref().is_none_or(|only| only == target.name));
    assert!(chosen().count() > 0, "FLAKEFARM_FUZZ_TARGET names none of the readers");
    if let Some(seed) = number("FLAKEFARM_FUZZ_SEED") {
        chosen().for_each(|target| try_one(target, seed));
        return;
    }
    let seconds = number("FLAKEFARM_FUZZ_SECONDS");
    let first = seconds.map_or(0, |_| u64::from(std::process::id()) << 32);
    for target in chosen() {
        let effort = seconds.map_or(Effort::Inputs(FEW), |seconds| {
            Effort::Until(Instant::now() + Duration::from_secs(seconds))
        });
        let mut tried = 0;
        while effort.goes_on(tried) {
            try_one(target, first + tried);
            tried += 1;
        }
        eprintln!("{}: {tried} inputs", target.name);
    }
}

/// What is wrong must be found: a seed of each reader is right, and the mutations change it.
#[test]
fn inputs_are_bounded_and_differ() {
    for target in TARGETS {
        let made: std::collections::BTreeSet<Vec<u8>> = (0..100).map(|seed| input(target, seed)).collect();
        assert!(made.len() > 80, "{}: {} of 100 differ", target.name, made.len());
        assert!(made.iter().all(|bytes| bytes.len() <= mutate::LARGEST), "{}", target.name);
        assert_eq!(input(target, 7), input(target, 7), "chance is the same in each run");
    }
}
