//! Sweeps that were submitted to a farm from here, so that `--resume` finds the last one again: the
//! farm itself knows a project only by its name.

use crate::stores;
use flakefarm_shared::{Digest, SweepId};
use std::path::{Path, PathBuf};

/// Remembers the last sweep of a project on a farm. Not to be able to costs the comfort only.
pub(crate) fn remember(state: Option<&Path>, farm: &str, root: &Path, id: SweepId) {
    let kept = file(state, farm, root).and_then(|file| {
        std::fs::create_dir_all(file.parent()?).and_then(|()| std::fs::write(file, id.to_string())).ok()
    });
    if kept.is_none() {
        tracing::warn!(sweep.id = %id, "the sweep could not be remembered: --resume will not find it");
    }
}

/// The last sweep of a project on a farm that was submitted from here.
pub(crate) fn last(state: Option<&Path>, farm: &str, root: &Path) -> Option<SweepId> {
    std::fs::read_to_string(file(state, farm, root)?).ok()?.trim().parse().ok()
}

fn file(state: Option<&Path>, farm: &str, root: &Path) -> Option<PathBuf> {
    let name = Digest::of(format!("{farm}\n{}", root.display()).as_bytes());
    Some(stores::state_dir(state).ok()?.join("submitted").join(name.as_str()))
}
