//! Adapts tests to changes of the code they test, as far as the difference between the two trees proves
//! what to do. Pure: source text goes in, edits and their reasons come out. Nothing here reads files, runs
//! tests or decides that a repair is right; that is for experiments to show.
//!
//! The order of work: [`tree::SourceTree`] holds the Python sources of one revision,
//! [`python::symbols::SymbolTable`] what they define, [`matching`] says which symbol of the old tree is
//! which one of the new, and [`adapt`] rewrites the references in test files. [`gates`] checks what was
//! proposed, by whomever. [`cause`] says why a test fails, as far as its exception and the difference show it.

pub mod adapt;
pub mod cause;
pub mod changes;
pub mod difference;
pub mod edits;
pub mod expectations;
pub mod flaky;
pub mod gates;
pub mod matching;
pub mod mutants;
pub mod oracle;
pub mod python;
pub mod touched;
pub mod tree;
pub mod upkeep;

pub use adapt::{Adaptation, FileAdaptation, adapt};
pub use tree::{SourceTree, TreeError};
