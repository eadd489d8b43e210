//! Named points at which a test may have this process end at once, as `kill -9` would end it. In debug builds and
//! under the feature `faults` only: elsewhere a point is nothing.
//!
//! `FLAKEFARM_FAULT=worker.appended:3` kills the process when it passes that point for the third time,
//! having written the point's name to the file in `FLAKEFARM_FAULT_FELT`, so that a test can tell that
//! its fault was felt.

/// The points there are, between a job's row and its acknowledgement.
pub const POINTS: [&str; 13] = [
    "coordinator.begun",
    "coordinator.published",
    "coordinator.queued",
    "coordinator.received",
    "coordinator.recorded",
    "coordinator.acknowledged",
    "worker.received",
    "worker.permitted",
    "worker.attempted",
    "worker.appended",
    "worker.packed",
    "worker.published",
    "worker.acknowledged",
];

/// Passes a point.
#[cfg(any(debug_assertions, feature = "faults"))]
pub fn point(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static PLAN: OnceLock<Option<(String, u32)>> = OnceLock::new();
    static PASSED: AtomicU32 = AtomicU32::new(0);

    debug_assert!(POINTS.contains(&name), "{name} is not among the points");
    let plan = PLAN.get_or_init(|| {
        let text = std::env::var("FLAKEFARM_FAULT").ok()?;
        let (point, time) = text.split_once(':').unwrap_or((&text, "1"));
        Some((point.to_owned(), time.parse().ok()?))
    });
    let Some((point, time)) = plan else { return };
    if point != name || PASSED.fetch_add(1, Ordering::SeqCst) + 1 != *time {
        return;
    }
    if let Ok(file) = std::env::var("FLAKEFARM_FAULT_FELT") {
        // A test that misses the file fails: nothing else can be done about it here.
        std::fs::write(file, name).ok();
    }
    // No handler, no destructor, no flush runs.
    std::process::abort();
}

/// Passes a point.
#[cfg(not(any(debug_assertions, feature = "faults")))]
pub fn point(_name: &str) {}
