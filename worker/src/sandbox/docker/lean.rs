//! Whether the lean runtime works here. Being registered does not mean that it can start anything: the first
//! container tells, which costs as much as a container. What it told may be kept in a file for the processes that
//! come after this one, for a day, and for this engine on this kernel only.

use super::super::engine::EngineFacts;
use flakefarm_shared::InfraError;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(super) use super::super::engine::LEAN_RUNTIME as RUNTIME;

/// Somebody may mend it.
const BELIEVED: Duration = Duration::from_secs(24 * 3600);

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Lean {
    fails: AtomicBool,
    file: OnceLock<PathBuf>,
    read: OnceLock<bool>,
}

impl Lean {
    /// Reads and keeps it in `file`, too.
    pub(super) fn remember_in(&self, file: PathBuf) {
        let _already_set = self.file.set(file);
    }

    /// Whether it is known not to work.
    pub(super) fn fails(&self, facts: &EngineFacts) -> bool {
        let read =
            || self.file.get().is_some_and(|file| recorded(file).is_some_and(|found| found == of(facts)));
        self.fails.load(Ordering::Relaxed) || *self.read.get_or_init(read)
    }

    /// It has just failed.
    pub(super) fn note_failure(&self, facts: &EngineFacts, error: &InfraError) {
        if self.fails.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::warn!("runtime {RUNTIME} does not work here, taking the default: {error}");
        if let (Some(file), false) = (self.file.get(), facts.id.is_empty()) {
            // Not to be had is found out again.
            let _ = std::fs::write(file, of(facts));
        }
    }
}

fn of(facts: &EngineFacts) -> String {
    let EngineFacts { id, version, kernel, .. } = facts;
    format!("{RUNTIME} fails\nengine {id}\nversion {version}\nkernel {kernel}\n")
}

fn recorded(file: &Path) -> Option<String> {
    let written = std::fs::metadata(file).ok()?.modified().ok()?;
    // A time to come is no reason to believe it for longer.
    (written.elapsed().ok()? < BELIEVED).then(|| std::fs::read_to_string(file).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flakefarm_shared::InfraStage;
    use std::fs::File;
    use std::time::SystemTime;

    fn facts(id: &str) -> EngineFacts {
        EngineFacts {
            id: id.to_owned(),
            version: "20".to_owned(),
            kernel: "6".to_owned(),
            api_version: "1.41".to_owned(),
            runtimes: vec![RUNTIME.to_owned()],
            default_runtime: "runc".to_owned(),
            is_podman: false,
            cpus: 2,
            data_root: String::new(),
            cgroups: String::new(),
            rootless: false,
        }
    }

    #[test]
    fn a_failure_is_remembered_for_a_day_and_for_its_engine() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("runtime");
        let next = |engine: &str| {
            let lean = Lean::default();
            lean.remember_in(file.clone());
            lean.fails(&facts(engine))
        };
        assert!(!next("a"));
        let lean = Lean::default();
        lean.remember_in(file.clone());
        let error = InfraError { stage: InfraStage::Sandbox, message: "OCI runtime".to_owned() };
        lean.note_failure(&facts("a"), &error);
        assert!(lean.fails(&facts("a")) && next("a"));
        assert!(!next("b"));
        let old = SystemTime::now().checked_sub(BELIEVED).unwrap();
        File::options().write(true).open(&file).unwrap().set_modified(old).unwrap();
        assert!(!next("a"));
    }
}
