//! pytest: its part of the plugin, and what it can do.

use super::{Adapter, python};
use flakefarm_shared::{Capabilities, ProjectSpec};

/// pytest.
pub static ADAPTER: Adapter = Adapter {
    name: "pytest",
    files: &[
        ("flakefarm_failures.py", include_str!("plugin/flakefarm_failures.py")),
        ("flakefarm_forks.py", include_str!("plugin/flakefarm_forks.py")),
        ("flakefarm_ids.py", include_str!("plugin/flakefarm_ids.py")),
        ("flakefarm_parallel.py", include_str!("plugin/flakefarm_parallel.py")),
        ("flakefarm_pytest.py", include_str!("plugin/flakefarm_pytest.py")),
        ("flakefarm_quiet.py", include_str!("plugin/flakefarm_quiet.py")),
        ("flakefarm_recorder.py", include_str!("plugin/flakefarm_recorder.py")),
        ("flakefarm_repeats.py", include_str!("plugin/flakefarm_repeats.py")),
        ("flakefarm_running.py", include_str!("plugin/flakefarm_running.py")),
    ],
    // The parallel world takes pytest-xdist, which each attempt in it looks for.
    capabilities: Capabilities::everything,
    command,
    hint_refused,
    hint_no_tests: "set `paths` under [tests] in flakefarm.toml, or see whether `pytest --collect-only` finds them",
};

/// pytest finds modules by itself.
fn command(project: &ProjectSpec, _path: &[String]) -> String {
    python::module_command(project, "pytest")
}

/// pytest does not know an option, which a plugin that is not there would have brought.
fn hint_refused(log: &str) -> Option<&'static str> {
    ["unrecognized arguments", "unknown config option", "unrecognized configuration", "error: argument"]
        .iter()
        .any(|words| log.contains(words))
        .then_some(
            "install the plugins that the project's configuration asks for, in a step of `setup` under \
             [environment] in flakefarm.toml; or do without its options: `flakefarm sweep PATH -- -o addopts=`",
        )
}
