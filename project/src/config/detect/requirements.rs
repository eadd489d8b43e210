//! Requirements as Poetry, Pipenv, PDM and uv write them, as pip reads them.

use toml::{Table, Value};

/// What an entry of a table of dependencies asks pip for: a requirement, or `-e PATH`. None for the
/// interpreter itself and for what is optional.
pub(super) fn of_table(name: &str, value: &Value) -> Option<String> {
    if name == "python" {
        return None;
    }
    match value {
        Value::String(version) => Some(format!("{name}{}", specifier(version))),
        // Several for several interpreters: pip chooses by their markers.
        Value::Array(_) => Some(name.to_owned()),
        Value::Table(table) => of_entry(name, table),
        _ => None,
    }
}

fn of_entry(name: &str, table: &Table) -> Option<String> {
    let text = |key: &str| table.get(key).and_then(Value::as_str);
    if table.get("optional").and_then(Value::as_bool) == Some(true) {
        return None;
    }
    let listed = table.get("extras").and_then(Value::as_array).into_iter().flatten();
    let extras: Vec<&str> = listed.filter_map(Value::as_str).collect();
    let extras = if extras.is_empty() { String::new() } else { format!("[{}]", extras.join(",")) };
    if let Some(path) = text("path").or_else(|| text("file").filter(|file| !file.contains("://"))) {
        let path = if path.starts_with(['.', '/']) { path.to_owned() } else { format!("./{path}") };
        let editable =
            ["editable", "develop"].iter().any(|key| table.get(*key).and_then(Value::as_bool) == Some(true));
        return Some(format!("{}{path}{extras}", if editable { "-e " } else { "" }));
    }
    let mut requirement = if let Some(git) = text("git") {
        let at = ["rev", "tag", "branch", "ref"].iter().find_map(|key| text(key));
        let at = at.map_or_else(String::new, |at| format!("@{at}"));
        let below = text("subdirectory").map_or_else(String::new, |below| format!("#subdirectory={below}"));
        let scheme = if git.contains("://") { "git+" } else { "git+ssh://" };
        let address = if scheme == "git+" { git.to_owned() } else { git.replacen(':', "/", 1) };
        format!("{name}{extras} @ {scheme}{address}{at}{below}")
    } else if let Some(address) = text("url").or_else(|| text("file")) {
        format!("{name}{extras} @ {address}")
    } else {
        format!("{name}{extras}{}", specifier(text("version").unwrap_or("*")))
    };
    if let Some(markers) = text("markers") {
        requirement.push_str(" ; ");
        requirement.push_str(markers);
    }
    Some(requirement)
}

/// A version as Poetry writes it (`^1.2`, `~1.2`, `1.2`, `*`, `>=1,<2`) as a specifier of Python's.
pub(super) fn specifier(version: &str) -> String {
    let version = version.trim();
    // Of alternatives the last is the newest.
    let version = version.rsplit("||").next().unwrap_or(version).trim();
    let parts = version.split([',', ' ']).map(str::trim).filter(|part| !part.is_empty());
    let mut glued: Vec<String> = Vec::new();
    for part in parts {
        match glued.last_mut() {
            // `>= 1.2` is written apart.
            Some(last) if last.ends_with(['=', '<', '>', '^', '~', '!']) => last.push_str(part),
            _ => glued.push(part.to_owned()),
        }
    }
    let specifiers: Vec<String> = glued.iter().filter_map(|part| one(part)).collect();
    specifiers.join(",")
}

fn one(part: &str) -> Option<String> {
    if matches!(part, "*" | "latest") {
        return None;
    }
    if let Some(version) = part.strip_prefix('^') {
        return Some(format!(">={version},<{}", next(version, true)?));
    }
    if let Some(version) = part.strip_prefix('~').filter(|version| !version.starts_with('=')) {
        return Some(format!(">={version},<{}", next(version, false)?));
    }
    if part.starts_with(|c: char| c.is_ascii_digit()) {
        return Some(format!("=={part}"));
    }
    Some(part.to_owned())
}

/// The first version beyond: of a caret, where the first part that is not zero would change; of a
/// tilde, where the second would.
fn next(version: &str, caret: bool) -> Option<String> {
    let digits = version.split(|c: char| !(c.is_ascii_digit() || c == '.')).next()?.trim_end_matches('.');
    let numbers: Vec<u64> = digits.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
    let place = match caret {
        true => numbers.iter().position(|number| *number > 0).unwrap_or(numbers.len() - 1),
        false => usize::from(numbers.len() > 1),
    };
    let mut beyond: Vec<String> = numbers[..place].iter().map(u64::to_string).collect();
    beyond.push((numbers[place] + 1).to_string());
    if beyond.len() == 1 {
        beyond.push("0".to_owned());
    }
    Some(beyond.join("."))
}

/// The name of a requirement, as indexes compare names.
pub(super) fn name(requirement: &str) -> String {
    let end = requirement.find(|c: char| !(c.is_alphanumeric() || "-_.".contains(c)));
    requirement[..end.unwrap_or(requirement.len())].to_lowercase().replace(['_', '.'], "-")
}

/// Whether a requirement speaks of pytest: where it stands, tests' requirements stand.
pub(super) fn is_of_tests(requirement: &str) -> bool {
    let name = name(requirement.trim());
    name == "pytest" || name.starts_with("pytest-") || name == "hypothesis"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_poetry_become_those_of_pip() {
        for (version, expect) in [
            ("*", ""),
            ("^8", ">=8,<9.0"),
            ("^1.2.3", ">=1.2.3,<2.0"),
            ("^0.2.3", ">=0.2.3,<0.3"),
            ("^0.0.3", ">=0.0.3,<0.0.4"),
            ("^0.0", ">=0.0,<0.1"),
            ("^7.0.0rc1", ">=7.0.0rc1,<8.0"),
            ("~1.2.3", ">=1.2.3,<1.3"),
            ("~1.2", ">=1.2,<1.3"),
            ("~1", ">=1,<2.0"),
            ("~=1.2", "~=1.2"),
            ("1.2.*", "==1.2.*"),
            ("1.2", "==1.2"),
            (">=1.2,<2", ">=1.2,<2"),
            (">= 1.2, < 2", ">=1.2,<2"),
            ("^6.0 || ^7.0", ">=7.0,<8.0"),
        ] {
            assert_eq!(specifier(version), expect, "{version}");
        }
    }

    #[test]
    fn entries_of_tables_become_requirements() {
        for (entry, expect) in [
            ("x = '*'", Some("x")),
            ("python = '^3.9'", None),
            ("x = {version='^1', extras=['a', 'b']}", Some("x[a,b]>=1,<2.0")),
            ("x = {version='1', optional=true}", None),
            ("x = {git='https://g.example/x.git', tag='v1'}", Some("x @ git+https://g.example/x.git@v1")),
            ("x = {git='git@g.example:o/x.git'}", Some("x @ git+ssh://git@g.example/o/x.git")),
            ("x = {path='../x', develop=true}", Some("-e ../x")),
            ("x = {path='x', editable=true, extras=['a']}", Some("-e ./x[a]")),
            ("x = {path='x'}", Some("./x")),
            ("x = {url='https://u.example/x.whl'}", Some("x @ https://u.example/x.whl")),
            ("x = {version='*', markers=\"python_version < '3.11'\"}", Some("x ; python_version < '3.11'")),
            ("x = [{version='1'}, {version='2'}]", Some("x")),
        ] {
            let table: Table = entry.parse().expect("TOML");
            let (name, value) = table.iter().next().expect("an entry");
            assert_eq!(of_table(name, value).as_deref(), expect, "{entry}");
        }
    }
}
