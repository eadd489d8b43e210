//! What a source tree says about itself. Detection never fails: what cannot be read is not there,
//! and a guess is a default that `flakefarm.toml` replaces.

use std::collections::BTreeMap;
use std::path::Path;
use toml::{Table, Value};

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Detection {
    /// What gave the tests away; `None` if nothing looks like tests.
    pub(super) why: Option<String>,
    pub(super) name: String,
    pub(super) image: String,
    pub(super) inputs: Vec<String>,
    pub(super) setup_variables: BTreeMap<String, String>,
    pub(super) warnings: Vec<String>,
    installs: Vec<String>,
}

impl Detection {
    /// Set-up steps. An image that the project builds itself is expected to hold what it needs.
    pub(super) fn setup(&self, python: &str, built_by_project: bool) -> Vec<String> {
        let mut steps = Vec::new();
        if !built_by_project {
            steps.extend(self.installs.iter().map(|what| format!("{python} -m pip install {what}")));
        }
        steps.push(format!("{python} -c 'import pytest' || {python} -m pip install pytest"));
        steps
    }
}

/// Images are tried in this order: the default, newer ones, older ones.
const MINORS: [u32; 7] = [12, 13, 14, 11, 10, 9, 8];
const TEST_EXTRAS: [&str; 5] = ["test", "tests", "testing", "dev", "develop"];
const REQUIREMENTS: [&str; 12] = [
    "requirements-dev.txt",
    "requirements-test.txt",
    "requirements-tests.txt",
    "requirements_dev.txt",
    "requirements_test.txt",
    "dev-requirements.txt",
    "test-requirements.txt",
    "dev_requirements.txt",
    "test_requirements.txt",
    "requirements/dev.txt",
    "requirements/test.txt",
    "requirements/tests.txt",
];
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
    let buildable = tree.is_buildable();
    Detection {
        why: tree.why(root),
        name: tree.name(root),
        image: tree.image(),
        inputs: tree.inputs(root, buildable),
        setup_variables: tree.setup_variables(),
        installs: tree.installs(root, buildable),
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
}

impl Tree {
    fn read(root: &Path) -> Self {
        let text = |name: &str| std::fs::read_to_string(root.join(name)).ok();
        let pyproject_text = text("pyproject.toml").unwrap_or_default();
        let (pyproject, pyproject_error) = match pyproject_text.parse::<Table>() {
            Ok(table) => (table, None),
            Err(error) => (Table::new(), Some(error.message().to_owned())),
        };
        Self {
            pyproject,
            pyproject_text,
            pyproject_error,
            setup_cfg: Ini::parse(&text("setup.cfg").unwrap_or_default()),
            tox_ini: Ini::parse(&text("tox.ini").unwrap_or_default()),
            setup_py: text("setup.py"),
        }
    }

    fn toml(&self, path: &[&str]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.pyproject.get(*first)?, |value, key| value.get(key))
    }

    fn toml_text(&self, path: &[&str]) -> Option<&str> {
        self.toml(path)?.as_str()
    }

    fn is_buildable(&self) -> bool {
        self.pyproject.contains_key("project")
            || self.pyproject.contains_key("build-system")
            || self.setup_py.is_some()
            || self.setup_cfg.has("metadata")
    }

    fn why(&self, root: &Path) -> Option<String> {
        for name in ["pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml"] {
            if root.join(name).is_file() {
                return Some(name.to_owned());
            }
        }
        if self.toml(&["tool", "pytest"]).is_some() {
            return Some("pytest settings in pyproject.toml".to_owned());
        }
        if self.setup_cfg.has("tool:pytest") {
            return Some("pytest settings in setup.cfg".to_owned());
        }
        if self.tox_ini.has("pytest") {
            return Some("pytest settings in tox.ini".to_owned());
        }
        test_file(root).map(|found| format!("test file {found}"))
    }

    fn name(&self, root: &Path) -> String {
        let named = self
            .toml_text(&["project", "name"])
            .or_else(|| self.toml_text(&["tool", "poetry", "name"]))
            .or_else(|| self.setup_cfg.get("metadata", "name"))
            .map(str::to_owned)
            .or_else(|| self.setup_py.as_deref().and_then(|text| python_keyword(text, "name")));
        named.filter(|name| !name.trim().is_empty()).unwrap_or_else(|| {
            let absolute = std::fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
            absolute
                .file_name()
                .map_or_else(|| "project".to_owned(), |name| name.to_string_lossy().into_owned())
        })
    }

    fn image(&self) -> String {
        let required = self
            .toml_text(&["project", "requires-python"])
            .or_else(|| self.toml_text(&["tool", "poetry", "dependencies", "python"]))
            .or_else(|| self.setup_cfg.get("options", "python_requires"))
            .map(str::to_owned)
            .or_else(|| self.setup_py.as_deref().and_then(|text| python_keyword(text, "python_requires")))
            .unwrap_or_default();
        let minor = MINORS.into_iter().find(|minor| satisfies(*minor, &required)).unwrap_or(MINORS[0]);
        format!("python:3.{minor}-slim")
    }

    /// What to install, as arguments of `pip install`.
    fn installs(&self, root: &Path, buildable: bool) -> Vec<String> {
        let mut installs = Vec::new();
        if buildable {
            match self.test_extra() {
                Some(extra) => installs.push(format!("-e '.[{extra}]'")),
                None => installs.push("-e .".to_owned()),
            }
        } else if root.join("requirements.txt").is_file() {
            installs.push("-r requirements.txt".to_owned());
        }
        for name in REQUIREMENTS.iter().filter(|name| root.join(name).is_file()) {
            installs.push(format!("-r {name}"));
        }
        if let Some(group) = TEST_EXTRAS.iter().find(|name| self.toml(&["dependency-groups", name]).is_some())
        {
            let requirements = self.group(group, 0);
            if !requirements.is_empty() {
                installs.push(requirements.join(" "));
            }
        }
        installs
    }

    fn test_extra(&self) -> Option<&'static str> {
        TEST_EXTRAS.into_iter().find(|extra| {
            self.toml(&["project", "optional-dependencies", extra]).is_some()
                || self.toml(&["tool", "poetry", "extras", extra]).is_some()
                || self.setup_cfg.get("options.extras_require", extra).is_some()
                || self.setup_py.as_deref().is_some_and(|text| mentions_extra(text, extra))
        })
    }

    /// The requirements of a dependency group, quoted for a shell; groups may include others.
    fn group(&self, name: &str, depth: usize) -> Vec<String> {
        let Some(Value::Array(items)) = self.toml(&["dependency-groups", name]) else { return Vec::new() };
        if depth > 8 {
            return Vec::new();
        }
        items
            .iter()
            .flat_map(|item| match (item.as_str(), item.get("include-group").and_then(Value::as_str)) {
                (Some(requirement), _) => vec![format!("'{}'", requirement.replace('\'', "\""))],
                (None, Some(included)) => self.group(included, depth + 1),
                (None, None) => Vec::new(),
            })
            .collect()
    }

    fn inputs(&self, root: &Path, buildable: bool) -> Vec<String> {
        let mut inputs: Vec<String> = ["pyproject.toml", "setup.cfg", "setup.py"]
            .into_iter()
            .filter(|name| buildable && root.join(name).is_file())
            .map(str::to_owned)
            .collect();
        let listed = REQUIREMENTS.iter().any(|name| root.join(name).is_file());
        if listed || root.join("requirements.txt").is_file() {
            // All of them: one may include another.
            inputs.push("*requirements*.txt".to_owned());
            if root.join("requirements").is_dir() {
                inputs.push("requirements/*".to_owned());
            }
        }
        inputs
    }

    fn setup_variables(&self) -> BTreeMap<String, String> {
        // Debian's interpreter refuses to be installed into otherwise; an image is ours to change.
        let mut variables = BTreeMap::from([
            ("PIP_BREAK_SYSTEM_PACKAGES".to_owned(), "1".to_owned()),
            ("PIP_DISABLE_PIP_VERSION_CHECK".to_owned(), "1".to_owned()),
            ("PIP_ROOT_USER_ACTION".to_owned(), "ignore".to_owned()),
        ]);
        let from_git = ["setuptools_scm", "setuptools-scm", "hatch-vcs"];
        let texts = [Some(&self.pyproject_text), self.setup_py.as_ref()];
        if texts.into_iter().flatten().any(|text| from_git.iter().any(|tool| text.contains(tool))) {
            // A snapshot has no repository to take the version from, nor has the image git.
            variables.insert("SETUPTOOLS_SCM_PRETEND_VERSION".to_owned(), "0.0.0".to_owned());
        }
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

/// Whether Python 3.`minor` satisfies a version specifier (`>=3.9,<3.13`, `^3.8`). A part that is
/// not understood is taken as satisfied.
fn satisfies(minor: u32, specifier: &str) -> bool {
    let version = (3, minor);
    specifier.split(',').all(|part| {
        let part = part.trim();
        let digits = part.find(|c: char| c.is_ascii_digit()).unwrap_or(part.len());
        let (operator, rest) = (part[..digits].trim(), &part[digits..]);
        let mut numbers = rest.split('.').map(|number| number.trim().parse::<u32>());
        let Some(Ok(major)) = numbers.next() else { return true };
        let minor = numbers.next().and_then(Result::ok);
        let patched = numbers.next().is_some_and(|patch| patch.is_ok_and(|patch| patch > 0));
        let wanted = (major, minor.unwrap_or(0));
        match operator {
            ">=" | "^" => version >= wanted && (operator != "^" || version.0 == major),
            // The newest patch of an image's version is greater than any named here.
            ">" => version > wanted || (version == wanted && patched),
            "<=" => version <= wanted,
            // `<3.12.4` leaves no room for the newest 3.12.
            "<" => version < wanted,
            "~=" | "~" if minor.is_some() && (operator == "~" || rest.matches('.').count() > 1) => {
                version == wanted
            }
            "~=" | "~" => version >= wanted && version.0 == major,
            "==" | "===" | "" => version.0 == major && minor.is_none_or(|minor| version.1 == minor),
            "!=" => patched || minor.is_none_or(|minor| version != (major, minor)),
            _ => true,
        }
    })
}

/// The value of `keyword="..."` in Python source, where it is a plain string.
fn python_keyword(source: &str, keyword: &str) -> Option<String> {
    source.match_indices(keyword).find_map(|(at, _)| {
        let starts_word = !source[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.');
        let value = source[at + keyword.len()..].trim_start().strip_prefix('=')?.trim_start();
        let quote = value.chars().next().filter(|c| starts_word && matches!(c, '\'' | '"'))?;
        let text = &value[1..];
        let end = text.find(quote)?;
        (end > 0 && !text[..end].contains('\n')).then(|| text[..end].to_owned())
    })
}

/// Whether a `setup.py` seems to declare an extra of this name.
fn mentions_extra(source: &str, extra: &str) -> bool {
    let Some(at) = source.find("extras_require") else { return false };
    ['\'', '"'].iter().any(|quote| {
        let key = format!("{quote}{extra}{quote}");
        source[at..]
            .match_indices(&key)
            .any(|(found, _)| source[at + found + key.len()..].trim_start().starts_with(':'))
    })
}

/// Sections and single-line values of an INI file; keys with values on further lines are known to
/// be there.
#[derive(Default)]
struct Ini {
    sections: BTreeMap<String, BTreeMap<String, String>>,
}

impl Ini {
    fn parse(text: &str) -> Self {
        let mut ini = Self::default();
        let mut section = String::new();
        for line in text.lines() {
            let trimmed = line.trim();
            if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
                section = name.trim().to_owned();
                ini.sections.entry(section.clone()).or_default();
            } else if !line.starts_with([' ', '\t', '#', ';'])
                && let Some((key, value)) = trimmed.split_once(['=', ':'])
            {
                let keys = ini.sections.entry(section.clone()).or_default();
                keys.insert(key.trim().to_lowercase(), value.trim().to_owned());
            }
        }
        ini
    }

    fn has(&self, section: &str) -> bool {
        self.sections.contains_key(section)
    }

    fn get(&self, section: &str, key: &str) -> Option<&str> {
        self.sections.get(section)?.get(key).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_follows_the_required_python() {
        for (required, minor) in [
            ("", 12),
            (">=3.8", 12),
            (">=3.13", 13),
            (">3.12", 13),
            (">=3.9,<3.12", 11),
            (">=3.9, <3.11, !=3.10.*", 9),
            ("<4", 12),
            ("^3.8", 12),
            ("~=3.10", 12),
            ("~=3.10.0", 10),
            ("==3.11.*", 11),
            ("<=3.10", 10),
            ("3.9.*", 9),
            ("nonsense", 12),
            (">=2.7, !=3.0.*, !=3.1.*", 12),
            ("<3", 12),
        ] {
            let found = MINORS.into_iter().find(|minor| satisfies(*minor, required)).unwrap_or(MINORS[0]);
            assert_eq!(found, minor, "{required}");
        }
    }

    #[test]
    fn setup_py_is_read_without_being_run() {
        let source = "setup(\n  name = 'thing', filename='no', python_requires=\">=3.9\",\n  extras_require={\"test\": ['x'], 'docs' : []})";
        assert_eq!(python_keyword(source, "name").as_deref(), Some("thing"));
        assert_eq!(python_keyword(source, "python_requires").as_deref(), Some(">=3.9"));
        assert_eq!(python_keyword("name=NAME", "name"), None);
        assert!(
            mentions_extra(source, "test")
                && mentions_extra(source, "docs")
                && !mentions_extra(source, "dev")
        );
    }
}
