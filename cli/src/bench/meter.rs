//! What a measurement cost: CPU time and memory, read from /proc and cgroups. Linux only; elsewhere
//! there is nothing to read, and the answer is zero or none.

use std::fs;

/// Clock ticks a second in /proc; the kernel reports to user space in hundredths, whatever it counts in.
const TICKS: f64 = 100.0;

/// CPU seconds so far of this process's threads whose names begin with one of `names`.
pub(crate) fn thread_seconds(names: &[&str]) -> f64 {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return 0.0 };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok())
        .filter_map(|stat| {
            let (before, after) = stat.split_once('(')?.1.rsplit_once(')')?;
            names.iter().any(|name| before.starts_with(name)).then(|| ticks(after))
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
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    kib.and_then(|text| text.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}
