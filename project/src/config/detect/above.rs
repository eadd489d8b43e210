//! What lies above the directory that is swept: settings and fixtures that plain pytest would use.

use super::ini::Ini;
use std::path::Path;
use toml::Table;

/// How far up is looked.
const LEVELS: usize = 6;

/// What plain pytest would find above `root`, as a warning with what to type instead. Nothing if the
/// directory has settings of its own, since pytest looks no further then.
pub(super) fn warning(root: &Path) -> Option<String> {
    let root = std::fs::canonicalize(root).ok()?;
    let repository = root.ancestors().find(|directory| directory.join(".git").exists());
    let mut settings: Option<(usize, &str)> = None;
    let mut fixtures: Option<usize> = None;
    for (level, directory) in root.ancestors().enumerate().skip(1).take(LEVELS) {
        // `/home` and the like are nobody's project.
        let is_of_system = directory.parent().is_none_or(|above| above.parent().is_none());
        if is_of_system || repository.is_some_and(|repository| !directory.starts_with(repository)) {
            break;
        }
        if directory.join("conftest.py").is_file() {
            fixtures = Some(level);
        }
        if let Some(name) = settings_in(directory) {
            settings = Some((level, name));
            break;
        }
    }
    let level = settings.map(|(level, _)| level).or(fixtures)?;
    let up = vec![".."; level].join("/");
    let mut found: Vec<String> =
        settings.map(|(_, name)| format!("{up}/{name} has pytest's settings")).into_iter().collect();
    if let Some(level) = fixtures {
        found.push(format!("{}/conftest.py has fixtures", vec![".."; level].join("/")));
    }
    let top = root.ancestors().nth(level)?;
    let below = root.strip_prefix(top).ok()?;
    Some(format!(
        "{}, which {} not part of what is swept here; if tests need {}: flakefarm sweep {} --tests {}/",
        found.join(" and "),
        if found.len() > 1 { "are" } else { "is" },
        if found.len() > 1 { "them" } else { "it" },
        quoted(&top.display().to_string()),
        quoted(&below.display().to_string()),
    ))
}

/// The file with pytest's settings in a directory.
pub(super) fn settings_in(directory: &Path) -> Option<&'static str> {
    let text = |name: &str| std::fs::read_to_string(directory.join(name)).ok();
    for name in ["pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml"] {
        if directory.join(name).is_file() {
            return Some(name);
        }
    }
    let pyproject = text("pyproject.toml").and_then(|text| text.parse::<Table>().ok());
    if pyproject.is_some_and(|table| table.get("tool").is_some_and(|tool| tool.get("pytest").is_some())) {
        return Some("pyproject.toml");
    }
    if text("tox.ini").is_some_and(|text| Ini::parse(&text).has("pytest")) {
        return Some("tox.ini");
    }
    text("setup.cfg").is_some_and(|text| Ini::parse(&text).has("tool:pytest")).then_some("setup.cfg")
}

fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+".contains(c);
    if path.chars().all(plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', "'\\''")) }
}
