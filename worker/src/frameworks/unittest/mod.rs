//! The runner of Python's standard library: its part of the plugin, and what it can do.

use super::{Adapter, python};
use flakefarm_shared::ProjectSpec;
use flakefarm_shared::capabilities::{Capabilities, Starts};
use std::collections::BTreeSet;

/// `python -m unittest`.
pub static ADAPTER: Adapter = Adapter {
    name: "unittest",
    files: &[
        ("flakefarm_unittest.py", include_str!("plugin/flakefarm_unittest.py")),
        ("flakefarm_unittest_loading.py", include_str!("plugin/flakefarm_unittest_loading.py")),
        ("flakefarm_unittest_output.py", include_str!("plugin/flakefarm_unittest_output.py")),
        ("flakefarm_unittest_running.py", include_str!("plugin/flakefarm_unittest_running.py")),
    ],
    capabilities,
    command,
    hint_refused: |_| None,
    hint_no_tests: "set `paths` under [tests] in flakefarm.toml to the directories that tests are in, or see whether \
                    `python -m unittest discover` finds them",
};

fn capabilities() -> Capabilities {
    Capabilities {
        // It has no processes to spread tests over.
        worlds_without: BTreeSet::from(["parallel".to_owned()]),
        starts: Starts::Fresh,
        ..Capabilities::everything()
    }
}

/// Names of modules begin below the directories in `path`, beside the root.
fn command(project: &ProjectSpec, path: &[String]) -> String {
    // What says where and how to discover does not go with names of tests.
    let command = format!("{} -m unittest", project.environment.python);
    match path {
        [] => command,
        path => format!("PYTHONPATH={} {command}", python::shell_quoted(&path.join(":"))),
    }
}
