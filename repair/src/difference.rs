//! What follows for tests from the difference between two trees, and what the gates that need no experiment say of it.

use crate::adapt::{Adaptation, AsyncStyle, adapt};
use crate::changes::Changes;
use crate::gates::{Violation, cheats, is_inverse};
use crate::tree::SourceTree;

/// A proposal, and what it rests on.
#[derive(Debug)]
pub struct Proposed {
    /// What changed in the code.
    pub changes: Changes,
    /// The tests that follow it; no files where there is nothing to follow.
    pub adapted: Adaptation,
    /// What the gates object to.
    pub violations: Vec<Violation>,
    /// Whether the change in the other direction leads back to the tests as they were.
    pub inverse: bool,
}

/// Adapts the tests of `new` to what changed since `old`, in which they passed.
pub fn from_difference(old: &SourceTree, new: &SourceTree, style: AsyncStyle) -> Proposed {
    let changes = Changes::between(old, new);
    let adapted = adapt(new, &changes, style);
    let inverse = is_inverse(old, new, new, &adapted, style);
    let violations = adapted
        .files
        .iter()
        .flat_map(|file| {
            let before = new.file(&file.path).map(|before| before.text.as_str());
            cheats(&file.path, before, Some(&file.text), str::to_owned)
        })
        .collect();
    Proposed { changes, adapted, violations, inverse }
}
