//! Whether setuptools can tell by itself what a tree's packages are. Its rule is the automatic discovery of a "flat
//! layout": <https://setuptools.pypa.io/en/latest/userguide/package_discovery.html>.

use super::Tree;
use std::path::Path;

/// Directories that it takes for no packages.
const NO_PACKAGES: [&str; 30] = [
    "ci",
    "bin",
    "debian",
    "doc",
    "docs",
    "documentation",
    "manpages",
    "news",
    "newsfragments",
    "changelog",
    "test",
    "tests",
    "unit_test",
    "unit_tests",
    "example",
    "examples",
    "scripts",
    "tools",
    "util",
    "utils",
    "python",
    "build",
    "benchmark",
    "benchmarks",
    "exercise",
    "exercises",
    "htmlcov",
    "tasks",
    "fabfile",
    "site_scons",
];
/// Files that it takes for no modules.
const NO_MODULES: [&str; 21] = [
    "setup",
    "conftest",
    "test",
    "tests",
    "example",
    "examples",
    "build",
    "toxfile",
    "noxfile",
    "pavement",
    "dodo",
    "tasks",
    "fabfile",
    "Sconstruct",
    "sconstruct",
    "conanfile",
    "manage",
    "benchmark",
    "benchmarks",
    "exercise",
    "exercises",
];

/// The packages, or the modules, of which setuptools would refuse to choose; empty if it can build the tree, or somebody
/// says what it is made of.
pub(super) fn undecided(tree: &Tree, root: &Path) -> Vec<String> {
    let backend = tree.toml_text(&["build-system", "build-backend"]);
    let said = ["packages", "py-modules", "ext-modules", "package-dir"]
        .iter()
        .any(|key| tree.toml(&["tool", "setuptools", key]).is_some())
        || ["packages", "py_modules", "package_dir"]
            .iter()
            .any(|key| tree.setup_cfg.get("options", key).is_some());
    let others = backend.is_some_and(|backend| !backend.starts_with("setuptools"));
    let poetry = backend.is_none() && tree.toml(&["project"]).is_none();
    if others || poetry || said || tree.setup_py.is_some() || root.join("src").is_dir() {
        return Vec::new();
    }
    let (mut packages, mut modules) = (Vec::new(), Vec::new());
    let walk = ignore::WalkBuilder::new(root).max_depth(Some(1)).require_git(false).build();
    for entry in walk.flatten().filter(|entry| entry.depth() == 1) {
        let Some(name) = entry.file_name().to_str() else { continue };
        match (entry.path().is_dir(), name.strip_suffix(".py")) {
            (true, _) if is_identifier(name) && !NO_PACKAGES.contains(&name) => {
                packages.push(name.to_owned())
            }
            (false, Some(module)) if is_identifier(module) && !NO_MODULES.contains(&module) => {
                modules.push(module.to_owned());
            }
            _ => {}
        }
    }
    // Modules are looked for only where there is no package.
    let mut found = if packages.is_empty() { modules } else { packages };
    found.sort();
    if found.len() > 1 { found } else { Vec::new() }
}

/// Whether it can be imported; what begins with `_` or `.` is left out.
fn is_identifier(name: &str) -> bool {
    name.chars().next().is_some_and(char::is_alphabetic)
        && name.chars().all(|character| character == '_' || character.is_alphanumeric())
}
