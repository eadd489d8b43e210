//! Rewrites the references that test files make to the code under test, for a new version of that code.
//! Only what the difference between the two trees proves is changed; what it leaves open is noted.

mod asynchrony;
mod imports;
mod references;

pub use asynchrony::AsyncStyle;

use crate::changes::Changes;
use crate::edits::{Edits, Overlap};
use crate::python::scopes::Scopes;
use crate::python::symbols::package_of;
use crate::python::types::{Fixtures, Types, View, read_fixtures};
use crate::python::walk::walk;
use crate::tree::{SourceFile, SourceTree};
use std::collections::BTreeSet;

/// What was rewritten in a whole tree.
#[derive(Debug, Default)]
pub struct Adaptation {
    /// Files with changes, by path.
    pub files: Vec<FileAdaptation>,
    /// What could not be decided, or had to be assumed, for people.
    pub notes: BTreeSet<Note>,
}

impl Adaptation {
    /// Whether everything that was rewritten follows from the difference of the code alone.
    pub fn is_proved(&self) -> bool {
        !self.notes.iter().any(|note| matches!(note, Note::ValueAssumed { .. }))
    }
}

/// One rewritten file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileAdaptation {
    /// Below the root.
    pub path: String,
    /// The whole new text.
    pub text: String,
}

/// Something a person should look at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Note {
    /// A required parameter was added for which the new code shows no value: `None` was put in.
    ValueAssumed {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// What is called.
        called: String,
    },
    /// A call whose arguments cannot be told (unpacked, or too many).
    CallNotUnderstood {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// What is called.
        called: String,
    },
    /// A call that must be awaited now stands where nothing can be awaited.
    CannotAwait {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
    },
    /// The rewritten file was no Python any more: left as it was.
    Unsound {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
}

/// Adapts the test files of `tests` to `changes`.
pub fn adapt(tests: &SourceTree, changes: &Changes, style: AsyncStyle) -> Adaptation {
    let mut result = Adaptation::default();
    if changes.is_empty() {
        return result;
    }
    let contexts: Vec<Context<'_>> = tests.test_files().map(|file| Context::new(tests, file)).collect();
    let mut fixtures = Fixtures::new();
    for context in &contexts {
        let nothing = Fixtures::new();
        let view = View { table: &changes.old, scopes: &context.scopes, fixtures: &nothing };
        read_fixtures(&context.file.parsed.syntax().body, view, &mut fixtures);
    }
    let style = style.seen_in(tests);
    for context in &contexts {
        match adapt_file(context, changes, &fixtures, style, &mut result.notes) {
            Ok(Some(text)) => result.files.push(FileAdaptation { path: context.file.path.clone(), text }),
            Ok(None) => {}
            Err(reason) => {
                result.notes.insert(Note::Unsound { path: context.file.path.clone(), reason });
            }
        }
    }
    result
}

/// One test file, and how its names are bound.
struct Context<'a> {
    file: &'a SourceFile,
    package: String,
    scopes: Scopes,
}

impl<'a> Context<'a> {
    fn new(tree: &SourceTree, file: &'a SourceFile) -> Self {
        let module = tree.module_name(&file.path);
        let package = package_of(file, &module);
        let scopes = Scopes::read(&file.parsed.syntax().body, &package);
        Self { file, package, scopes }
    }
}

fn adapt_file(
    context: &Context<'_>,
    changes: &Changes,
    fixtures: &Fixtures,
    style: AsyncStyle,
    notes: &mut BTreeSet<Note>,
) -> Result<Option<String>, String> {
    let body = &context.file.parsed.syntax().body;
    let view = View { table: &changes.old, scopes: &context.scopes, fixtures };
    let types = Types::read(body, view);
    let mut edits = Edits::default();
    let mut imports = imports::Imports::new(context, changes);
    walk(body, &context.scopes, &mut imports);
    let rebound = imports.finish(&mut edits);
    let mut references = references::References::new(context, changes, view, &types, rebound);
    walk(body, &context.scopes, &mut references);
    let found = references.finish(&mut edits, notes);
    asynchrony::rewrite(context, found, style, &mut edits, notes);
    if edits.is_empty() {
        return Ok(None);
    }
    let text =
        edits.apply(&context.file.text).map_err(|Overlap { at }| format!("two edits meet at byte {at}"))?;
    ruff_python_parser::parse_module(&text).map_err(|error| error.to_string())?;
    Ok((text != context.file.text).then_some(text))
}

/// The line of a byte, from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests;
