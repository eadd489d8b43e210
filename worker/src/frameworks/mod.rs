//! How a test framework is listed, run and read. A framework is a plugin that runs inside the
//! sandbox and writes events, and a reader of these events. Nothing here knows containers.
//!
//! A new framework is a folder with its [`Adapter`] and a line in [`of`].

mod bounds;
mod ending;
pub mod events;
pub mod pytest;
pub mod python;
pub mod reader;
pub mod seal;
pub mod unittest;

use flakefarm_shared::project::Framework;
use flakefarm_shared::{Capabilities, ProjectSpec};

/// A framework, as the rest of the worker sees it.
#[derive(Debug)]
pub struct Adapter {
    /// As people and messages call it.
    pub name: &'static str,
    /// Its own files of the plugin, by name.
    files: &'static [(&'static str, &'static str)],
    capabilities: fn() -> Capabilities,
    command: fn(&ProjectSpec, &[String]) -> String,
    hint_refused: fn(&str) -> Option<&'static str>,
    /// What may help if it found no tests.
    pub hint_no_tests: &'static str,
}

/// The adapter of a framework.
pub fn of(framework: Framework) -> &'static Adapter {
    match framework {
        Framework::Pytest => &pytest::ADAPTER,
        Framework::Unittest => &unittest::ADAPTER,
    }
}

impl Adapter {
    /// Files to put into the image, by name below [`python::PLUGIN_DIRECTORY`].
    pub fn files(&self) -> Vec<(String, &'static str)> {
        python::FILES.iter().chain(self.files).map(|(name, content)| ((*name).to_owned(), *content)).collect()
    }

    /// What the framework can do.
    pub fn capabilities(&self) -> Capabilities {
        (self.capabilities)()
    }

    /// The command that runs the same by hand, without the test ids. `path` holds directories below the root
    /// that modules are named from, as the listing told them.
    pub fn command(&self, project: &ProjectSpec, path: &[String]) -> String {
        (self.command)(project, path)
    }

    /// What may help if the framework refused its arguments or configuration, by what it said.
    pub fn hint_refused(&self, log: &str) -> Option<&'static str> {
        (self.hint_refused)(log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_framework_goes_by_its_word_and_brings_a_module_of_its_own() {
        for framework in Framework::ALL {
            let adapter = of(framework);
            assert_eq!(adapter.name, framework.word());
            let files = adapter.files();
            let module = format!("flakefarm_{}.py", framework.word());
            assert!(files.iter().any(|(name, _)| *name == module), "run.py imports {module}");
            let names: std::collections::BTreeSet<&String> = files.iter().map(|(name, _)| name).collect();
            assert_eq!(names.len(), files.len());
            assert!(adapter.capabilities().can_run(flakefarm_shared::Scope::Suite));
        }
    }
}
