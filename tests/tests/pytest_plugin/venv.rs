//! A Python with pytest and plugins of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const PACKAGES: [&str; 6] =
    ["pytest", "pytest-randomly", "pytest-xdist", "pytest-rerunfailures", "pytest-cov", "freezegun"];

/// A Python that has [`PACKAGES`], made once per build directory.
pub(crate) fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pytest-plugin-venv");
        if !home.is_dir() {
            // Made aside and renamed: another test process may be doing the same.
            let made = home.with_extension(std::process::id().to_string());
            run(Command::new("python3").args(["-m", "venv"]).arg(&made), "install python3 and python3-venv");
            let mut pip = Command::new(made.join("bin/python3"));
            pip.args(["-m", "pip", "install", "--quiet"]).args(PACKAGES);
            run(&mut pip, "these packages must be installable by pip here");
            if std::fs::rename(&made, &home).is_err() {
                assert!(home.is_dir(), "{} cannot be made", home.display());
                std::fs::remove_dir_all(&made).expect("the second copy can be removed");
            }
        }
        home.join("bin/python3")
    })
}

/// Runs a command that must work.
pub(crate) fn run(command: &mut Command, hint: &str) {
    let shown = format!("{command:?}");
    let output = command.output().unwrap_or_else(|error| panic!("{shown}: {error}\nhint: {hint}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown} failed\n{said}\nhint: {hint}");
}
