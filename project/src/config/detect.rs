//! What a source tree says about itself. Detection never fails: what cannot be read is not there,
//! and a guess is a default that `flakefarm.toml` replaces.

mod above;
mod framework;
mod ini;
mod layout;
mod python;
mod requirements;
mod tools;
mod version;

use flakefarm_shared::project::Framework;
use ini::Ini;
use python::satisfies;
use std::collections::BTreeMap;
use std::path::Path;
use toml::{Table, Value};
use tools::Needs;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Detection {
    /// What gave the tests away; `None` if nothing looks like tests.
    pub(super) why: Option<String>,
    pub(super) framework: Framework,
    pub(super) name: String,
    pub(super) image: String,
    pub(super) inputs: Vec<String>,
    pub(super) setup_variables: BTreeMap<String, String>,
    pub(super) warnings: Vec<String>,
    installs: Vec<String>,
}

impl Detection {
    /// Set-up steps. An image that the project builds itself is expected to hold what it needs.
    pub(super) fn setup(&self, python: &str, framework: Framework, built_by_project: bool) -> Vec<String> {
        let mut steps = Vec::new();
        if !built_by_project {
            if self.installs.iter().any(|what| what.contains("git+")) {
                steps.push("git --version || apt-get update".to_owned());
                steps.push("git --version || apt-get install -y --no-install-recommends git".to_owned());
            }
            steps.extend(self.installs.iter().map(|what| format!("{python} -m pip install {what}")));
        }
        match framework {
            Framework::Pytest => {
                steps.push(format!("{python} -c 'import pytest' || {python} -m pip install pytest"));
            }
            // Part of Python.
            Framework::Unittest => {}
        }
        steps
    }
}

/// Images are tried in this order: the default, newer ones, older ones.
const MINORS: [u32; 7] = [12, 13, 14, 11, 10, 9, 8];
/// How deep test files are searched for, and how many entries are looked at.
const DEPTH: usize = 5;
const ENTRIES: usize = 20_000;

/// Looks at the tree at `root`.
pub(super) fn detect(root: &Path) -> Detection {
    let tree = Tree::read(root);
    let mut warnings = Vec::new();
    if let Some(error) = &tree.pyproject_error {
        warnings.push(format!("pyproject.toml is not valid TOML and was not looked at: {error}"));
    }
    if !tree.undecided.is_empty() {
        warnings.push(format!(
            "pyproject.toml does not say which of {} the project is made of, and setuptools would refuse to build it: what \
             it needs is installed, the project itself is not",
            tree.undecided.join(", ")
        ));
    }
    let needs = Needs::read(&tree, root);
    warnings.extend(needs.warnings.iter().cloned());
    warnings.extend(above::settings_in(root).is_none().then(|| above::warning(root)).flatten());
    let (framework, cases) = framework::of(root);
    Detection {
        why: cases.map(|file| format!("cases of unittest in {file}")).or_else(|| tree.why(root)),
        framework,
        name: tree.name(root),
        image: tree.image(root),
        inputs: tree.inputs(root),
        setup_variables: tree.setup_variables(root),
        installs: tree.installs(root, &needs),
        warnings,
    }
}

/// The files that matter, read once.
struct Tree {
    pyproject: Table,
    pyproject_text: String,
    pyproject_error: Option<String>,
    setup_cfg: Ini,
    tox_ini: Ini,
    setup_py: Option<String>,
    /// Of which its build would refuse to choose.
    undecided: Vec<String>,
}

impl Tree {
    fn read(root: &Path) -> Self {
        let text = |name: &str| std::fs::read_to_string(root.join(name)).ok();
        let pyproject_text = text("pyproject.toml").unwrap_or_default();
        let (pyproject, pyproject_error) = match pyproject_text.parse::<Table>() {
            Ok(table) => (table, None),
            Err(error) => (Table::new(), Some(error.message().to_owned())),
        };
        let mut tree = Self {
            pyproject,
            pyproject_text,
            pyproject_error,
            setup_cfg: Ini::parse(&text("setup.cfg").unwrap_or_default()),
            tox_ini: Ini::parse(&text("tox.ini").unwrap_or_default()),
            setup_py: text("setup.py"),
            undecided: Vec::new(),
        };
        tree.undecided = layout::undecided(&tree, root);
        tree
    }

    fn toml(&self, path: &[&str]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.pyproject.get(*first)?, |value, key| value.get(key))
    }

    fn toml_text(&self, path: &[&str]) -> Option<&str> {
        self.toml(path)?.as_str()
    }

    fn is_buildable(&self) -> bool {
        if tools::is_no_package(self) {
            return false;
        }
        self.pyproject.contains_key("project")
            || self.pyproject.contains_key("build-system")
            || self.setup_py.is_some()
            || self.setup_cfg.has("metadata")
    }

    fn why(&self, root: &Path) -> Option<String> {
        match above::settings_in(root) {
            Some(name) if name.contains("pytest.") => return Some(name.to_owned()),
            Some(name) => return Some(format!("pytest settings in {name}")),
            None => {}
        }
        test_file(root).map(|found| format!("test file {found}"))
    }

    fn name(&self, root: &Path) -> String {
        let named = self
            .toml_text(&["project", "name"])
            .or_else(|| self.toml_text(&["tool", "poetry", "name"]))
            .or_else(|| self.setup_cfg.get("metadata", "name"))
            .map(str::to_owned)
            .or_else(|| self.setup_py.as_deref().and_then(|text| python::keyword(text, "name")));
        named.filter(|name| !name.trim().is_empty()).unwrap_or_else(|| {
            let absolute = std::fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
            absolute
                .file_name()
                .map_or_else(|| "project".to_owned(), |name| name.to_string_lossy().into_owned())
        })
    }

    fn image(&self, root: &Path) -> String {
        let required = self
            .toml_text(&["project", "requires-python"])
            .map(str::to_owned)
            .or_else(|| tools::required_python(self, root))
            .or_else(|| self.setup_cfg.get("options", "python_requires").map(str::to_owned))
            .or_else(|| self.setup_py.as_deref().and_then(|text| python::keyword(text, "python_requires")))
            .unwrap_or_default();
        let minor = MINORS.into_iter().find(|minor| satisfies(*minor, &required)).unwrap_or(MINORS[0]);
        format!("python:3.{minor}-slim")
    }

    /// What to install, as arguments of `pip install`.
    fn installs(&self, root: &Path, needs: &Needs) -> Vec<String> {
        let mut installs = Vec::new();
        let mut own: Vec<String> = needs.local.iter().map(|local| argument(local)).collect();
        let listed = root.join("requirements.txt").is_file();
        if self.is_buildable() {
            own.push(match needs.extras.is_empty() {
                true => "-e .".to_owned(),
                false => format!("-e '.[{}]'", needs.extras.join(",")),
            });
            if listed && self.declares_nothing() {
                installs.push("-r requirements.txt".to_owned());
            }
        } else if listed {
            installs.push("-r requirements.txt".to_owned());
        }
        if !own.is_empty() {
            installs.insert(0, own.join(" "));
        }
        installs.extend(needs.files.iter().map(|name| format!("-r {name}")));
        if !needs.requirements.is_empty() {
            let requirements: Vec<String> = needs.requirements.iter().map(|one| argument(one)).collect();
            installs.push(requirements.join(" "));
        }
        installs
    }

    /// Whether the project itself says of nothing that it needs it.
    fn declares_nothing(&self) -> bool {
        let dynamic = tools::strings(self.toml(&["project", "dynamic"])).any(|name| name == "dependencies");
        !dynamic
            && self.toml(&["project", "dependencies"]).is_none()
            && self.toml(&["tool", "poetry", "dependencies"]).is_none()
            && self.setup_cfg.get("options", "install_requires").is_none()
            && self.setup_py.as_deref().is_none_or(|text| !text.contains("install_requires"))
            // pbr reads requirements.txt itself.
            && !self.setup_py.as_deref().is_some_and(|text| text.contains("pbr"))
    }

    fn inputs(&self, root: &Path) -> Vec<String> {
        let described = ["pyproject.toml", "setup.cfg", "setup.py"];
        let mut inputs: Vec<String> = described
            .into_iter()
            .filter(|name| self.is_buildable() && root.join(name).is_file())
            .map(str::to_owned)
            .collect();
        let is_there = |name: &str| root.join(name).exists();
        if is_there("requirements") {
            inputs.push("requirements/*".to_owned());
        }
        let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
        let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        if names.any(|name| name.contains("requirements") && name.ends_with(".txt")) {
            // All of them: one may include another.
            inputs.push("*requirements*.txt".to_owned());
        }
        inputs
    }

    fn setup_variables(&self, root: &Path) -> BTreeMap<String, String> {
        // Debian's interpreter refuses to be installed into otherwise; an image is ours to change.
        let mut variables = BTreeMap::from([
            ("PIP_BREAK_SYSTEM_PACKAGES".to_owned(), "1".to_owned()),
            ("PIP_DISABLE_PIP_VERSION_CHECK".to_owned(), "1".to_owned()),
            ("PIP_ROOT_USER_ACTION".to_owned(), "ignore".to_owned()),
        ]);
        let texts = [Some(self.pyproject_text.as_str()), self.setup_py.as_deref()];
        let texts: Vec<&str> = texts.into_iter().flatten().collect();
        variables.extend(version::variables(&texts, self.setup_cfg.has("pbr"), root));
        variables
    }
}

/// The first file that pytest would collect by its name, nearest the root.
fn test_file(root: &Path) -> Option<String> {
    let walk = ignore::WalkBuilder::new(root)
        .max_depth(Some(DEPTH))
        .require_git(false)
        .sort_by_file_name(std::ffi::OsStr::cmp)
        .build();
    let mut found: Option<(usize, String)> = None;
    for entry in walk.take(ENTRIES).flatten() {
        let Some(name) = entry.file_name().to_str() else { continue };
        let is_test = name.ends_with(".py") && (name.starts_with("test_") || name.ends_with("_test.py"));
        let nearer = found.as_ref().is_none_or(|(depth, _)| entry.depth() < *depth);
        if is_test && nearer && entry.path().is_file() {
            let path = entry.path().strip_prefix(root).unwrap_or(entry.path());
            found = Some((entry.depth(), path.display().to_string()));
        }
    }
    found.map(|(_, path)| path)
}

/// A requirement, or `-e PATH`, quoted for a shell.
fn argument(requirement: &str) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "\""));
    match requirement.strip_prefix("-e ") {
        Some(path) => format!("-e {}", quoted(path)),
        None => quoted(requirement),
    }
}
