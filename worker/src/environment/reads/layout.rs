//! What an installation in place depends on: which files the project has, and what describes it. Known
//! only where nothing is computed when the project is installed.

use crate::environment::tree::Tree;
use flakefarm_shared::Digest;
use std::collections::BTreeSet;
use toml::{Table, Value};

/// Build back ends that run nothing of the project's own, with what they are called as a requirement.
const BACKENDS: [(&str, &str); 5] = [
    ("setuptools.build_meta", "setuptools"),
    ("hatchling.build", "hatchling"),
    ("flit_core.buildapi", "flit_core"),
    ("poetry.core.masonry.api", "poetry-core"),
    ("pdm.backend", "pdm-backend"),
];
/// Tables by which a back end is told to compute something.
const COMPUTING: [&[&str]; 11] = [
    &["setuptools", "dynamic"],
    &["setuptools", "ext-modules"],
    &["setuptools", "cmdclass"],
    &["setuptools_scm"],
    &["setuptools-git-versioning"],
    &["hatch", "version"],
    &["hatch", "metadata"],
    &["poetry", "build"],
    &["poetry-dynamic-versioning"],
    &["pdm", "build"],
    &["pdm", "version"],
];
/// Files by which a back end is told the same.
const COMPUTING_FILES: [&str; 5] = ["setup.py", "setup.cfg", "hatch_build.py", "hatch.toml", "build.py"];

/// A project whose metadata stands in its pyproject.toml, as it is.
#[derive(Debug, Clone)]
pub(in crate::environment) struct Layout {
    pyproject: Table,
    /// Files whose text goes into the metadata.
    told_by: BTreeSet<String>,
}

impl Layout {
    /// None where installing the project may run what it brings, or nothing says what it is.
    pub(super) fn of(tree: &Tree) -> Option<Self> {
        if COMPUTING_FILES.iter().any(|name| tree.file(name).is_some()) {
            return None;
        }
        let pyproject: Table = std::str::from_utf8(tree.file("pyproject.toml")?).ok()?.parse().ok()?;
        let poetry = at(&pyproject, &["tool", "poetry", "name"]).is_some();
        let dynamic = at(&pyproject, &["project", "dynamic"]).and_then(Value::as_array);
        if at(&pyproject, &["project", "name"]).is_none() && !poetry
            || dynamic.is_some_and(|dynamic| !dynamic.is_empty())
            || at(&pyproject, &["build-system", "backend-path"]).is_some()
            || hooks(&pyproject)
        {
            return None;
        }
        if let Some(system) = pyproject.get("build-system") {
            let backend = system.get("build-backend").map_or(Some("setuptools.build_meta"), Value::as_str)?;
            let (_, own) = BACKENDS.iter().find(|(known, _)| *known == backend)?;
            let requires = system.get("requires").and_then(Value::as_array)?;
            let known = |requirement: &Value| {
                let name = requirement.as_str().map(requirement_name).unwrap_or_default();
                name == own.replace('_', "-") || name == "wheel"
            };
            if !requires.iter().all(known) {
                return None;
            }
        }
        let mut told_by = BTreeSet::from(["pyproject.toml".to_owned(), "MANIFEST.in".to_owned()]);
        for named in [&["project", "readme"][..], &["project", "license"], &["tool", "poetry", "readme"]] {
            let named = at(&pyproject, named);
            let file = named.and_then(|named| named.get("file").unwrap_or(named).as_str());
            told_by.extend(file.map(str::to_owned));
        }
        Some(Self { pyproject, told_by })
    }

    /// Whether the project, with these extras, needs nothing beside itself.
    pub(super) fn depends_on_nothing(&self, extras: &BTreeSet<String>) -> bool {
        let is_empty = |path: &[&str]| {
            at(&self.pyproject, path).is_none_or(|listed| match listed {
                Value::Array(listed) => listed.is_empty(),
                Value::Table(listed) => listed.keys().all(|name| name == "python"),
                _ => false,
            })
        };
        extras.is_empty()
            && is_empty(&["project", "dependencies"])
            && is_empty(&["tool", "poetry", "dependencies"])
    }

    /// What an installation in place, and set-up steps that read `files`, depend on.
    pub(super) fn digest<'a>(&'a self, tree: &Tree, files: impl Iterator<Item = &'a String>) -> Digest {
        let told_by: BTreeSet<&String> = self.told_by.iter().chain(files).collect();
        let mut described = Vec::new();
        let mut say = |part: &[u8]| {
            described.extend((part.len() as u64).to_be_bytes());
            described.extend(part);
        };
        say(&tree.files);
        say(&tree.directories);
        for name in told_by {
            say(name.as_bytes());
            say(tree.file(name).unwrap_or_default());
        }
        Digest::of(&described)
    }
}

fn hooks(pyproject: &Table) -> bool {
    let tool = |path: &[&str]| {
        let path: Vec<&str> = ["tool"].into_iter().chain(path.iter().copied()).collect();
        at(pyproject, &path).is_some()
    };
    let hatch_build = at(pyproject, &["tool", "hatch", "build"]);
    let mut targets =
        hatch_build.and_then(|build| build.get("targets")).and_then(Value::as_table).into_iter();
    COMPUTING.iter().any(|path| tool(path))
        || hatch_build.is_some_and(|build| build.get("hooks").is_some())
        || targets.any(|targets| targets.values().any(|target| target.get("hooks").is_some()))
}

fn at<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(table.get(*first)?, |value, key| value.get(key))
}

fn requirement_name(requirement: &str) -> String {
    let end = requirement.find(|c: char| !(c.is_alphanumeric() || "-_.".contains(c)));
    requirement[..end.unwrap_or(requirement.len())].to_lowercase().replace(['_', '.'], "-")
}
