//! What the operating system knows of this process, and how late its own ticks come.

use super::catalogue::{CPU, OPEN_FILES, RESIDENT, RUNTIME_LAG, STARTED};
use std::fs;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// `USER_HZ`, in which Linux tells processes of CPU time, on every architecture that we build for.
const TICKS_PER_SECOND: f64 = 100.0;
const TICK: Duration = Duration::from_millis(500);
/// Of the two windows that the worst lateness is taken from.
const WINDOW: Duration = Duration::from_secs(30);

/// Reads what /proc says. What cannot be read stays as it was.
pub(super) fn read() {
    if let Ok(stat) = fs::read_to_string("/proc/self/stat") {
        // The name, in parentheses, may hold anything.
        let fields: Vec<&str> =
            stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        if let (Some(user), Some(system)) = (field(14), field(15)) {
            CPU.set(&[], (user + system) / TICKS_PER_SECOND);
        }
        if let (Some(after_boot), Some(boot)) = (field(22), booted()) {
            STARTED.set(&[], boot + after_boot / TICKS_PER_SECOND);
        }
    }
    if let Some(kib) = resident_kib() {
        RESIDENT.set(&[], kib * 1024.0);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        OPEN_FILES.set_whole(&[], open.count() as u64);
    }
}

fn booted() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn resident_kib() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Ticks until `stop`, and notes how late.
pub async fn watch_runtime(stop: CancellationToken) {
    let (mut before, mut worst, mut since) = (Duration::ZERO, Duration::ZERO, Instant::now());
    loop {
        let due = Instant::now() + TICK;
        tokio::select! {
            () = tokio::time::sleep_until(due.into()) => {}
            () = stop.cancelled() => return,
        }
        worst = worst.max(due.elapsed());
        RUNTIME_LAG.set(&[], worst.max(before).as_secs_f64());
        if since.elapsed() > WINDOW {
            (before, worst, since) = (worst, Duration::ZERO, Instant::now());
        }
    }
}
