//! What a measurement cost: CPU time and memory, read from /proc and cgroups. Linux only; elsewhere
//! there is nothing to read, and the answer is zero or none.

use crate::Unmeasured;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Clock ticks a second in /proc; the kernel reports to user space in hundredths, whatever it counts in.
const TICKS: f64 = 100.0;
const SAMPLING: Duration = Duration::from_millis(50);

/// Whether `path` lies in a memory file system of this machine.
pub(crate) fn is_in_memory(path: &str) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fields = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        Some((fields.nth(1)?, fields.next()?))
    });
    fields
        .filter(|(place, _)| Path::new(path).starts_with(place))
        .max_by_key(|(place, _)| place.len())
        .is_some_and(|(_, kind)| kind == "tmpfs")
}

/// Whose CPU time is counted.
#[derive(Debug, Clone)]
pub(crate) enum Cpu {
    /// All of the machine's: the engine, its helpers and the containers are spread over it.
    Machine,
    /// That of a cgroup that holds the engine, the containers and this program; the file, and what
    /// one of its units is in seconds.
    Group(PathBuf, f64),
}

impl Cpu {
    /// The cgroup at `path`, of either version.
    pub(crate) fn group(path: &Path) -> Result<Self, Unmeasured> {
        for (name, unit) in [("cpuacct.usage", 1e-9), ("cpu.stat", 1e-6)] {
            let file = path.join(name);
            if file.is_file() {
                return Ok(Cpu::Group(file, unit));
            }
        }
        Err(Unmeasured::usage(format!("{} is no cgroup that counts CPU time", path.display()))
            .hint("name one that holds the engine and its containers, or leave --cpu-cgroup out"))
    }

    /// Words for the report.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Cpu::Machine => "machine",
            Cpu::Group(..) => "cgroup",
        }
    }

    /// CPU seconds so far.
    pub(crate) fn seconds(&self) -> f64 {
        match self {
            Cpu::Machine => {
                let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
                let fields: Vec<f64> = stat
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .split_whitespace()
                    .skip(1)
                    .filter_map(|field| field.parse().ok())
                    .collect();
                // user, nice, system, irq and softirq; neither idle, iowait nor what others stole.
                [0, 1, 2, 5, 6].iter().filter_map(|place| fields.get(*place)).sum::<f64>() / TICKS
            }
            Cpu::Group(file, unit) => {
                let text = fs::read_to_string(file).unwrap_or_default();
                let first = text.lines().next().unwrap_or_default();
                first.rsplit(' ').next().and_then(|number| number.parse::<f64>().ok()).unwrap_or(0.0) * unit
            }
        }
    }
}

/// CPU seconds so far of this process's threads whose names begin with one of `names`.
pub(crate) fn thread_seconds(names: &[&str]) -> f64 {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return 0.0 };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok())
        .filter_map(|stat| {
            let (name, after) = stat.split_once('(')?.1.rsplit_once(')')?;
            names.iter().any(|wanted| name.starts_with(wanted)).then(|| ticks(after))
        })
        .sum::<f64>()
        / TICKS
}

/// User and system ticks in what follows the name in a stat file.
fn ticks(after_name: &str) -> f64 {
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    [11, 12].iter().filter_map(|place| fields.get(*place)?.parse::<f64>().ok()).sum()
}

/// This process's resident memory.
pub(crate) fn resident_bytes() -> u64 {
    kib_of("/proc/self/status", "VmRSS:") * 1024
}

/// The most memory that this process has had resident since [`ResidentPeak::start`].
pub(crate) struct ResidentPeak {
    before: u64,
}

impl ResidentPeak {
    /// Forgets the peak so far.
    pub(crate) fn start() -> Self {
        // Linux 4.0 and newer; where it is refused, the peak is that of the process's life.
        drop(fs::write("/proc/self/clear_refs", "5"));
        Self { before: resident_bytes() }
    }

    /// In MiB, beyond what the process had then.
    pub(crate) fn growth_mib(&self) -> f64 {
        (self.peak_mib() - self.before as f64 / f64::from(1 << 20)).max(0.0)
    }

    /// In MiB, all of the process.
    pub(crate) fn peak_mib(&self) -> f64 {
        kib_of("/proc/self/status", "VmHWM:") as f64 / 1024.0
    }
}

fn available_bytes() -> u64 {
    kib_of("/proc/meminfo", "MemAvailable:") * 1024
}

fn kib_of(file: &str, key: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|text| text.trim().trim_end_matches(" kB").trim().parse().ok()).unwrap_or(0)
}

/// Watches how much of the machine's memory is taken while it lives.
pub(crate) struct MemoryWatch {
    before: u64,
    least: Arc<AtomicU64>,
    _end: DropGuard,
}

impl MemoryWatch {
    pub(crate) fn start() -> Self {
        let before = available_bytes();
        let least = Arc::new(AtomicU64::new(before));
        let end = CancellationToken::new();
        let (watched, ended) = (least.clone(), end.clone());
        tokio::spawn(async move {
            while !ended.is_cancelled() {
                watched.fetch_min(available_bytes(), Ordering::Relaxed);
                tokio::time::sleep(SAMPLING).await;
            }
        });
        Self { before, least, _end: end.drop_guard() }
    }

    /// The most that was taken since the start, in MiB.
    pub(crate) fn peak_mib(&self) -> f64 {
        self.before.saturating_sub(self.least.load(Ordering::Relaxed)) as f64 / f64::from(1 << 20)
    }
}
