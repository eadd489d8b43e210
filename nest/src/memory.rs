//! Whether the memory limit ended a process of an attempt.
//!
//! In a container the kernel keeps the limit and counts what it ended; one attempt runs at a time, so
//! that what is counted while it runs is its own. On a host there is no cgroup that an ordinary user
//! could limit, so the nest looks itself, often, and ends the largest process as the kernel would.

use crate::sys;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// How often a watched attempt is looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(25);
const PAGE: u64 = 4096;

/// Who keeps the limit.
#[derive(Debug)]
pub(crate) enum Keeper {
    /// The kernel; this file counts what it ended.
    Kernel(File),
    /// The nest; the machine's /proc as it was before the root changed is still there for it.
    Nest,
}

impl Keeper {
    /// Opened while the ground's own files are there. A container without the counters has its limit
    /// all the same; then an end of memory looks like any other kill.
    pub(crate) fn of_container() -> Option<Self> {
        ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"]
            .iter()
            .find_map(|path| File::open(path).ok())
            .map(Keeper::Kernel)
    }

    /// Processes that the kernel has ended so far for want of memory.
    pub(crate) fn ended_so_far(&self) -> u64 {
        match self {
            Keeper::Kernel(counters) => {
                let mut text = [0; 512];
                let length = counters.read_at(&mut text, 0).unwrap_or(0);
                ended_in(&String::from_utf8_lossy(&text[..length]))
            }
            Keeper::Nest => 0,
        }
    }
}

fn ended_in(counters: &str) -> u64 {
    counters
        .lines()
        .filter_map(|line| line.strip_prefix("oom_kill "))
        .find_map(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

/// Ends the largest process of the attempt whose first process is `first` if together they have
/// more than `limit` bytes resident. Says whether it did.
pub(crate) fn enforce(first: i32, limit: u64) -> bool {
    let mut sizes = Vec::new();
    let mut waiting = vec![first];
    while let Some(process) = waiting.pop() {
        if process != first {
            sizes.push((resident(process), process));
        }
        waiting.extend(children(process));
    }
    let total: u64 = sizes.iter().map(|(size, _)| size).sum();
    if total <= limit {
        return false;
    }
    // Pages that forked processes share were counted for each of them; the true count is dearer.
    let shares = sizes.iter().map(|(size, process)| share(*process).unwrap_or(*size));
    if shares.sum::<u64>() <= limit {
        return false;
    }
    if let Some((_, largest)) = sizes.iter().max() {
        sys::kill(*largest);
    }
    true
}

/// Bytes that are not a file's, each page divided by the processes that share it.
fn share(process: i32) -> Option<u64> {
    share_in(&fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?)
}

fn share_in(rollup: &str) -> Option<u64> {
    let kibibytes = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    Some((kibibytes("Pss_Anon:")? + kibibytes("Pss_Shmem:")?) << 10)
}

/// Resident bytes that are not a file's.
fn resident(process: i32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{process}/statm")).unwrap_or_default();
    let pages: Vec<u64> = statm.split(' ').take(3).filter_map(|field| field.parse().ok()).collect();
    match pages[..] {
        [_, resident, shared] => resident.saturating_sub(shared) * PAGE,
        _ => 0,
    }
}

fn children(process: i32) -> Vec<i32> {
    let mut found = Vec::new();
    // A child belongs to the thread that made it.
    for thread in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
        let listed = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        found.extend(listed.split(' ').filter_map(|child| child.parse::<i32>().ok()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_leave_out_what_is_a_files() {
        let rollup =
            "Rss: 900 kB\nPss: 800 kB\nPss_Anon:           300 kB\nPss_File: 400 kB\nPss_Shmem: 4 kB\n";
        assert_eq!(share_in(rollup), Some(304 << 10));
        assert_eq!(share_in("Rss: 1 kB\n"), None);
    }

    #[test]
    fn counters_are_read_in_both_forms() {
        assert_eq!(ended_in("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), 3);
        assert_eq!(ended_in("low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n"), 1);
        assert_eq!(ended_in(""), 0);
    }
}
