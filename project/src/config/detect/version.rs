//! Versions that tools take from a repository: a snapshot has none, so they are told.

use std::path::Path;
use std::process::{Command, Stdio};

/// What such a tool is called in project files, and the variable that it reads instead.
const TOOLS: [(&str, &str); 10] = [
    ("setuptools_scm", "SETUPTOOLS_SCM_PRETEND_VERSION"),
    ("setuptools-scm", "SETUPTOOLS_SCM_PRETEND_VERSION"),
    ("hatch-vcs", "SETUPTOOLS_SCM_PRETEND_VERSION"),
    ("flit_scm", "SETUPTOOLS_SCM_PRETEND_VERSION"),
    ("vcs-versioning", "SETUPTOOLS_SCM_PRETEND_VERSION"),
    ("pbr", "PBR_VERSION"),
    ("poetry-dynamic-versioning", "POETRY_DYNAMIC_VERSIONING_BYPASS"),
    ("uv-dynamic-versioning", "UV_DYNAMIC_VERSIONING_BYPASS"),
    ("pdm-backend", "PDM_BUILD_SCM_VERSION"),
    ("versioningit", "VERSIONINGIT_FOR_PACKAGE_VERSION"),
];
const UNKNOWN: &str = "0.0.0";

/// Variables of set-up for a project that these files describe: its last tag's version, where the
/// directory is part of a repository, so that it changes with releases and not with each commit.
pub(super) fn variables(texts: &[&str], of_pbr: bool, root: &Path) -> Vec<(String, String)> {
    let wanted: Vec<&str> = TOOLS
        .iter()
        .filter(|(tool, _)| texts.iter().any(|text| mentions(text, tool)) || (of_pbr && *tool == "pbr"))
        .map(|(_, variable)| *variable)
        .collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let version = last_tag(root).unwrap_or_else(|| UNKNOWN.to_owned());
    wanted.into_iter().map(|variable| (variable.to_owned(), version.clone())).collect()
}

/// Whether a word stands in a text by itself.
fn mentions(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric();
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part))
}

fn last_tag(root: &Path) -> Option<String> {
    let mut git = Command::new("git");
    git.arg("-C").arg(root).args(["describe", "--tags", "--abbrev=0"]);
    let said = git.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let tag = String::from_utf8(said.stdout).ok().filter(|_| said.status.success())?;
    version_of(tag.trim())
}

/// `1.2.3` of `v1.2.3` or `release-1.2.3`; none where a tag is no version.
fn version_of(tag: &str) -> Option<String> {
    let version = &tag[tag.find(|c: char| c.is_ascii_digit())?..];
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '.';
    (version.contains('.') && version.chars().all(plain)).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_versions_or_nothing() {
        for (tag, version) in [
            ("v1.2.3", Some("1.2.3")),
            ("release-2.0rc1", Some("2.0rc1")),
            ("1.0", Some("1.0")),
            ("nightly", None),
            ("2024-01-01", None),
            ("v3", None),
        ] {
            assert_eq!(version_of(tag).as_deref(), version, "{tag}");
        }
    }

    #[test]
    fn tools_that_ask_a_repository_are_told() {
        let root = tempfile::tempdir().unwrap();
        let told = |text: &str| variables(&[text], false, root.path());
        assert_eq!(
            told("setup(setup_requires=['pbr'], pbr=True)"),
            [("PBR_VERSION".to_owned(), "0.0.0".to_owned())]
        );
        assert_eq!(told("requires = ['setuptools_scm[toml]>=6']").len(), 1);
        assert_eq!(told("a subpbrx"), []);
    }
}
