//! Where each tool's users write what tests need: extras, dependency groups, Poetry, PDM, uv, Rye, Hatch,
//! Pipenv, tox, nox, files of requirements, and `tests_require`.

use super::ini::Ini;
use super::requirements::{is_of_tests, name, of_table, specifier};
use super::{Tree, python};
use std::path::Path;
use toml::{Table, Value};

/// Names of what tests need, the most telling first.
const NAMES: [&str; 14] = [
    "test",
    "tests",
    "testing",
    "unit",
    "unittest",
    "unittests",
    "pytest",
    "dev",
    "develop",
    "development",
    "all-dev",
    "ci",
    "qa",
    "tox",
];
/// Groups may include groups, and tox's settings others, this deep.
const DEPTH: usize = 8;
const DIRECTORIES: [&str; 7] = ["", "requirements", "requirement", "reqs", "deps", "tests", "test"];

/// What is to be installed for a project's tests.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Extras of the project.
    pub(super) extras: Vec<String>,
    /// Requirements, or `-e PATH`.
    pub(super) requirements: Vec<String>,
    /// Files of requirements.
    pub(super) files: Vec<String>,
    /// Requirements of the project that are to be found in the tree rather than in an index.
    pub(super) local: Vec<String>,
    /// What was found and could not be read.
    pub(super) warnings: Vec<String>,
}

impl Needs {
    pub(super) fn read(tree: &Tree, root: &Path) -> Self {
        let mut needs = Self { extras: extras(tree), ..Self::default() };
        needs.groups(tree);
        needs.poetry(tree);
        needs.lists(tree);
        needs.hatch(tree);
        needs.files = files(root);
        needs.pipenv(tree, root);
        if let Some(source) = &tree.setup_py {
            needs.requirements.extend(python::list(source, "tests_require"));
        }
        needs.requirements.extend(tree.setup_cfg.lines("options", "tests_require").map(str::to_owned));
        if needs.says_nothing() {
            needs.tox(tree, root);
        }
        if needs.says_nothing() {
            needs.nox(root);
        }
        if needs.says_nothing() {
            let unread =
                ["environment.yml", "environment.yaml", "conda.yaml", "pixi.toml", "shell.nix", "flake.nix"];
            needs.warnings.extend(unread.iter().filter(|name| root.join(name).is_file()).map(|name| {
                format!(
                    "{name} is not read: if tests need what it lists, add a step to `setup` under [environment], or \
                     name an image that has it"
                )
            }));
        }
        needs.sources(tree, root);
        let mut seen = std::collections::BTreeSet::new();
        needs.requirements.retain(|requirement| seen.insert(requirement.clone()));
        needs
    }

    fn says_nothing(&self) -> bool {
        self.extras.is_empty() && self.requirements.is_empty() && self.files.is_empty()
    }

    /// Dependency groups of pyproject.toml.
    fn groups(&mut self, tree: &Tree) {
        let Some(groups) = tree.toml(&["dependency-groups"]).and_then(Value::as_table) else { return };
        let defaults = tree.toml(&["tool", "uv", "default-groups"]);
        let by_default = |group: &str| match defaults {
            Some(Value::Array(names)) => names.iter().any(|name| name.as_str() == Some(group)),
            Some(Value::String(all)) => all == "all",
            _ => false,
        };
        for group in groups.keys() {
            let requirements = group_of(groups, group, 0);
            if is_telling(group) || by_default(group) || requirements.iter().any(|one| is_of_tests(one)) {
                self.requirements.extend(requirements);
            }
        }
    }

    fn poetry(&mut self, tree: &Tree) {
        let tables = [["tool", "poetry", "dev-dependencies"].as_slice()];
        let old = tables.into_iter().filter_map(|path| tree.toml(path)?.as_table());
        let groups = tree.toml(&["tool", "poetry", "group"]).and_then(Value::as_table).into_iter().flatten();
        let groups = groups.filter_map(|(name, group)| {
            let dependencies = group.get("dependencies")?.as_table()?;
            let optional = group.get("optional").and_then(Value::as_bool) == Some(true);
            let of_tests = dependencies.keys().any(|name| is_of_tests(name));
            ((is_telling(name) && !optional) || of_tests).then_some(dependencies)
        });
        for table in old.chain(groups) {
            self.requirements.extend(table.iter().filter_map(|(name, value)| of_table(name, value)));
        }
        if is_no_package(tree) {
            let own = tree.toml(&["tool", "poetry", "dependencies"]).and_then(Value::as_table);
            let own = own.into_iter().flatten().filter_map(|(name, value)| of_table(name, value));
            let listed = strings(tree.toml(&["project", "dependencies"]));
            let extras = self.extras.iter();
            let of_extras =
                extras.flat_map(|extra| strings(tree.toml(&["project", "optional-dependencies", extra])));
            let all: Vec<String> = own.chain(listed).chain(of_extras).collect();
            self.requirements.splice(0..0, all);
        }
    }

    /// Lists of requirements of PDM, uv and Rye.
    fn lists(&mut self, tree: &Tree) {
        let groups = tree.toml(&["tool", "pdm", "dev-dependencies"]).and_then(Value::as_table);
        for (_, group) in groups.into_iter().flatten() {
            self.requirements.extend(strings(Some(group)).map(|text| match text.strip_prefix("-e ") {
                Some(address) => {
                    let path = address.trim_start_matches("file:///${PROJECT_ROOT}/");
                    format!("-e ./{}", path.split('#').next().unwrap_or(path))
                }
                None => text,
            }));
        }
        for tool in ["uv", "rye"] {
            self.requirements.extend(strings(tree.toml(&["tool", tool, "dev-dependencies"])));
        }
    }

    fn hatch(&mut self, tree: &Tree) {
        let environments = tree.toml(&["tool", "hatch", "envs"]).and_then(Value::as_table);
        for (name, environment) in environments.into_iter().flatten() {
            let listed = ["dependencies", "extra-dependencies"]
                .into_iter()
                .flat_map(|key| strings(environment.get(key)))
                .collect::<Vec<_>>();
            if is_telling(name.trim_start_matches("hatch-")) || listed.iter().any(|one| is_of_tests(one)) {
                self.requirements.extend(listed);
                self.extras.extend(strings(environment.get("features")));
            }
        }
        self.extras.dedup();
    }

    fn pipenv(&mut self, tree: &Tree, root: &Path) {
        let Ok(text) = std::fs::read_to_string(root.join("Pipfile")) else { return };
        let pipfile: Table = match text.parse() {
            Ok(table) => table,
            Err(_) => return self.warnings.push("Pipfile is not valid TOML and was not read".to_owned()),
        };
        let sections =
            if tree.is_buildable() { &["dev-packages"][..] } else { &["packages", "dev-packages"] };
        for section in sections {
            let packages = pipfile.get(*section).and_then(Value::as_table).into_iter().flatten();
            self.requirements.extend(packages.filter_map(|(name, value)| match value {
                // Pipenv's versions are pip's.
                Value::String(version) if version != "*" => Some(format!("{name}{version}")),
                other => of_table(name, other),
            }));
        }
    }

    /// What tox installs before it runs tests.
    fn tox(&mut self, tree: &Tree, root: &Path) {
        let legacy = tree.toml_text(&["tool", "tox", "legacy_tox_ini"]).map(Ini::parse);
        for ini in [Some(&tree.tox_ini), legacy.as_ref(), Some(&tree.setup_cfg)].into_iter().flatten() {
            let section =
                ["testenv", "testenv:py", "testenv:py3", "testenv:test", "testenv:tests", "testenv:unit"];
            let Some(section) = section.iter().find(|section| ini.get(section, "deps").is_some()) else {
                continue;
            };
            tox_deps(ini, section, 0, &mut self.requirements, &mut self.files);
            let extras = ini.get(section, "extras").unwrap_or_default().split([',', '\n']);
            self.extras.extend(extras.map(|extra| extra.trim().to_owned()).filter(|extra| !extra.is_empty()));
            return;
        }
        let native: Option<Table> =
            std::fs::read_to_string(root.join("tox.toml")).ok().and_then(|text| text.parse().ok());
        let native = native.as_ref().or_else(|| tree.toml(&["tool", "tox"])?.as_table());
        let base = native.and_then(|tox| tox.get("env_run_base"));
        let test = native.and_then(|tox| tox.get("env")?.get("test"));
        for environment in [base, test].into_iter().flatten() {
            self.requirements.extend(strings(environment.get("deps")));
            self.extras.extend(strings(environment.get("extras")));
        }
    }

    /// What sessions of nox install, where that is written out.
    fn nox(&mut self, root: &Path) {
        let Ok(source) = std::fs::read_to_string(root.join("noxfile.py")) else { return };
        for call in source.split("session.install(").skip(1) {
            let Some(arguments) = call.split(')').next() else { continue };
            let quoted: Vec<&str> = arguments.split(['\'', '"']).skip(1).step_by(2).collect();
            let written_out = arguments
                .split(['\'', '"'])
                .step_by(2)
                .all(|between| between.trim().trim_matches(',').trim().is_empty());
            if written_out && quoted.iter().any(|one| is_of_tests(one)) {
                self.requirements.extend(
                    quoted.iter().filter(|one| !one.starts_with(['-', '.'])).map(|one| (*one).to_owned()),
                );
            }
        }
        if self.says_nothing() && source.contains("pytest") {
            self.warnings.push(
                "what noxfile.py installs could not be read: if tests need more, add a step to `setup` under \
                 [environment]"
                    .to_owned(),
            );
        }
    }

    /// Replaces requirements that uv is told to look for elsewhere.
    fn sources(&mut self, tree: &Tree, root: &Path) {
        let Some(sources) = tree.toml(&["tool", "uv", "sources"]).and_then(Value::as_table) else { return };
        for (wanted, source) in sources {
            let in_workspace = source.get("workspace").and_then(Value::as_bool) == Some(true);
            let found = if in_workspace { member(tree, root, wanted) } else { of_table(wanted, source) };
            let is_it = |requirement: &String| name(requirement) == name(wanted);
            let needed = self.requirements.iter().any(is_it)
                || strings(tree.toml(&["project", "dependencies"])).any(|requirement| is_it(&requirement));
            if !needed || source.get("index").is_some() {
                continue;
            }
            match found {
                Some(found) if found.contains("../") => self.warnings.push(format!(
                    "`{wanted}` lies outside of this directory: sweep the directory above, with `--tests` for these"
                )),
                Some(found) => {
                    self.requirements.retain(|requirement| !is_it(requirement));
                    self.local.push(found);
                }
                None => self.warnings.push(format!(
                    "`{wanted}` is part of a workspace that is not below this directory: sweep the directory above, \
                     with `--tests` for these"
                )),
            }
        }
    }
}

/// Whether the project says that it is not to be installed, or cannot be.
pub(super) fn is_no_package(tree: &Tree) -> bool {
    let cannot_be = !tree.undecided.is_empty();
    cannot_be
        || [["poetry", "package-mode"], ["uv", "package"], ["pdm", "distribution"], ["rye", "virtual"]]
            .iter()
            .any(|[tool, key]| {
                let says = tree.toml(&["tool", tool, key]).and_then(Value::as_bool);
                says == Some(*tool == "rye")
            })
}

/// The project's extras that tests need: the one with the most telling name, and those with pytest in
/// them.
fn extras(tree: &Tree) -> Vec<String> {
    let mut declared: Vec<(String, String)> = Vec::new();
    for path in [["project", "optional-dependencies"].as_slice(), &["tool", "poetry", "extras"]] {
        let table = tree.toml(path).and_then(Value::as_table).into_iter().flatten();
        declared.extend(table.map(|(name, listed)| {
            (name.clone(), strings(Some(listed)).map(|one| format!("{one}\n")).collect())
        }));
    }
    let of_cfg = tree.setup_cfg.keys("options.extras_require");
    declared.extend(of_cfg.map(|(name, text)| (name.to_owned(), text.to_owned())));
    declared.extend(tree.setup_py.iter().flat_map(|source| python::extras(source)));
    let best = NAMES.iter().find(|known| declared.iter().any(|(name, _)| name.eq_ignore_ascii_case(known)));
    let mut chosen: Vec<String> = declared
        .into_iter()
        .filter(|(name, text)| {
            best.is_some_and(|best| name.eq_ignore_ascii_case(best)) || text.lines().any(is_of_tests)
        })
        .map(|(name, _)| name)
        .collect();
    chosen.sort();
    chosen.dedup();
    chosen
}

fn is_telling(name: &str) -> bool {
    let name = name.to_lowercase();
    NAMES.contains(&name.as_str()) || name.split(['-', '_', '.']).any(|word| NAMES[..9].contains(&word))
}

fn group_of(groups: &Table, name: &str, depth: usize) -> Vec<String> {
    let Some(Value::Array(items)) = groups.get(name) else { return Vec::new() };
    if depth > DEPTH {
        return Vec::new();
    }
    let items = items.iter().map(|item| (item.as_str(), item.get("include-group").and_then(Value::as_str)));
    items
        .flat_map(|item| match item {
            (Some(requirement), _) => vec![requirement.to_owned()],
            (None, Some(included)) => group_of(groups, included, depth + 1),
            (None, None) => Vec::new(),
        })
        .collect()
}

pub(super) fn strings(value: Option<&Value>) -> impl Iterator<Item = String> {
    let listed = value.and_then(Value::as_array).into_iter().flatten();
    listed.filter_map(Value::as_str).map(str::to_owned)
}

fn tox_deps(ini: &Ini, section: &str, depth: usize, requirements: &mut Vec<String>, files: &mut Vec<String>) {
    for line in ini.lines(section, "deps") {
        let line = line.split(" #").next().unwrap_or(line).trim();
        if let Some((section, _)) = line.strip_prefix("{[").and_then(|rest| rest.split_once(']'))
            && depth < DEPTH
        {
            tox_deps(ini, section, depth + 1, requirements, files);
            continue;
        }
        // `py39,django4: ...`: what only some environments need stays out.
        let line = match line.split_once(": ") {
            Some((factors, rest)) if factors.split(['-', ',', '!']).any(|f| is_telling(f) || f == "py") => {
                rest.trim()
            }
            Some(_) => continue,
            None => line,
        };
        let line = line.replace("{toxinidir}/", "").replace("{tox_root}/", "");
        if line.contains('{') || line.starts_with('.') {
            continue;
        }
        match line.strip_prefix("-r").or_else(|| line.strip_prefix("--requirement")) {
            Some(file) => files.push(file.trim_start_matches('=').trim().to_owned()),
            None if line.starts_with('-') => {}
            None => requirements.push(line),
        }
    }
}

/// Files of requirements whose names speak of tests or development, by name.
fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for directory in DIRECTORIES {
        let entries = std::fs::read_dir(root.join(directory)).into_iter().flatten().flatten();
        let names = entries.filter(|entry| entry.path().is_file());
        for name in names.filter_map(|entry| entry.file_name().into_string().ok()) {
            let Some((stem, end)) = name.rsplit_once('.') else { continue };
            let stem = stem.to_lowercase();
            let words: Vec<&str> = stem.split(['-', '_', '.']).collect();
            let says_requirements = directory.starts_with("req")
                || directory == "deps"
                || words.iter().any(|word| ["requirements", "requirement", "reqs"].contains(word));
            let says_tests =
                directory.starts_with("test") || words.iter().any(|word| NAMES[..12].contains(word));
            // What a `.txt` was made of, and what Rye locks for itself, say the same.
            let kind =
                end == "txt" || (end == "in" && !root.join(directory).join(format!("{stem}.txt")).is_file());
            if says_requirements && says_tests && kind {
                let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The member of uv's workspace with a name.
fn member(tree: &Tree, root: &Path, wanted: &str) -> Option<String> {
    strings(tree.toml(&["tool", "uv", "workspace", "members"])).find_map(|pattern| {
        let (above, all) = match pattern.strip_suffix("/*") {
            Some(above) => (above.to_owned(), true),
            None => (pattern, false),
        };
        let directories: Vec<String> = if all {
            let entries = std::fs::read_dir(root.join(&above)).ok()?.flatten();
            entries.filter_map(|e| Some(format!("{above}/{}", e.file_name().to_str()?))).collect()
        } else {
            vec![above]
        };
        directories.into_iter().find_map(|directory| {
            let text = std::fs::read_to_string(root.join(&directory).join("pyproject.toml")).ok()?;
            let table: Table = text.parse().ok()?;
            let own = table.get("project")?.get("name")?.as_str()?;
            (name(own) == name(wanted)).then(|| format!("-e ./{directory}"))
        })
    })
}

/// The interpreter that Poetry's and Pipenv's users ask for.
pub(super) fn required_python(tree: &Tree, root: &Path) -> Option<String> {
    let poetry = tree.toml_text(&["tool", "poetry", "dependencies", "python"]);
    if let Some(version) = poetry {
        return Some(if version.starts_with('^') { version.to_owned() } else { specifier(version) });
    }
    let pipfile: Table = std::fs::read_to_string(root.join("Pipfile")).ok()?.parse().ok()?;
    let version = pipfile.get("requires")?.get("python_version")?.as_str()?;
    Some(format!("=={version}"))
}
