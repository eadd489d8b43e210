//! What set-up reads of the project's tree, as far as its steps' texts say, and so which of them make a
//! layer that all snapshots share. Pure.
//!
//! A step that is not understood reads everything: then what it makes belongs to one snapshot. Only
//! what is known to install dependencies alone is kept for others.

mod commands;
mod layout;
mod pip;

use super::tree::Tree;
use flakefarm_shared::Digest;
use std::collections::{BTreeMap, BTreeSet};

pub(super) use layout::Layout;

/// What one step reads of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
enum StepReads {
    /// These files, by their paths in the tree; none of them for what comes from an index alone.
    Files(BTreeSet<String>),
    /// It installs the project itself, with its dependencies, and changes nothing else.
    Project(Install),
    /// Whatever it likes.
    Anything,
}

/// How a step installs the project.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Install {
    /// Files it names beside the project.
    files: BTreeSet<String>,
    /// Whether it leaves the sources where they are, and installs nothing else of the tree.
    only_in_place: bool,
    /// The extras it asks for.
    extras: BTreeSet<String>,
    /// Whether it installs more than the project and what that depends on.
    more: bool,
}

/// Set-up, divided into what snapshots share and what belongs to one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Division {
    /// Steps, by place, that make the shared layer, in order.
    pub(super) shared: Vec<usize>,
    /// What these see of the tree.
    pub(super) sees: Sees,
    /// The first step of those that run, all from here on, for the project itself. None: the shared
    /// layer is all there is.
    pub(super) own_from: Option<usize>,
    /// What the steps from there on read.
    pub(super) own: Own,
}

/// What the steps of a shared layer see of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sees {
    /// These files alone: the layer is made of nothing else.
    Files(BTreeSet<String>),
    /// All of it. The project is installed for its dependencies' sake, and taken out again.
    Everything,
}

/// What a project's own steps read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Own {
    /// Which files there are, and what is in those that describe the project.
    Layout(Digest),
    /// The whole snapshot.
    Sources,
}

/// Divides the steps of a set-up that runs in `tree` with `variables`.
pub(super) fn divide(steps: &[String], variables: &BTreeMap<String, String>, tree: &Tree) -> Division {
    let layout = Layout::of(tree);
    let variables_read = variables.iter().any(|(name, value)| pip::variable_reads_tree(name, value));
    let reads: Vec<StepReads> = steps
        .iter()
        .map(|step| if variables_read { StepReads::Anything } else { commands::reads(step, tree) })
        .collect();
    let own_from = reads.iter().position(|reads| !matches!(reads, StepReads::Files(_)));
    let known = reads.iter().position(|reads| matches!(reads, StepReads::Anything)).unwrap_or(reads.len());
    let without_dependencies = |install: &Install| {
        let layout = layout.as_ref().filter(|_| !install.more && install.files.is_empty());
        layout.is_some_and(|layout| layout.depends_on_nothing(&install.extras))
    };
    let mut division =
        Division { shared: Vec::new(), sees: Sees::Files(BTreeSet::new()), own_from, own: Own::Sources };
    for (place, reads) in reads[..known].iter().enumerate() {
        match (reads, &mut division.sees) {
            (StepReads::Files(files), Sees::Files(seen)) => seen.extend(files.iter().cloned()),
            (StepReads::Project(install), _) if without_dependencies(install) => continue,
            (StepReads::Project(_), sees) => *sees = Sees::Everything,
            (StepReads::Files(_) | StepReads::Anything, _) => {}
        }
        division.shared.push(place);
    }
    let in_place = reads[own_from.unwrap_or(reads.len())..].iter().all(|reads| match reads {
        StepReads::Files(_) => true,
        StepReads::Project(install) => install.only_in_place,
        StepReads::Anything => false,
    });
    if let Some(layout) = layout.filter(|_| in_place) {
        let files = reads.iter().filter_map(|reads| match reads {
            StepReads::Files(files) | StepReads::Project(Install { files, .. }) => Some(files),
            StepReads::Anything => None,
        });
        division.own = Own::Layout(layout.digest(tree, files.flatten()));
    }
    division
}

#[cfg(test)]
mod tests;
