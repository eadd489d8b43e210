//! What a program that is run for a stranger's sake has started and written.

use rustix::process::{Pid, Signal, kill_process_group};
use std::path::Path;
use std::process::Child;

/// Ends a child that leads a process group of its own, with all that is in the group. Blocking.
pub fn end(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _gone = kill_process_group(group, Signal::KILL);
    }
    let _gone = child.kill();
    let _gone = child.wait();
}

/// Bytes of the files below a directory; what cannot be read counts nothing. Blocking.
pub fn bytes_below(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
