//! Who answers for a file, as the project's CODEOWNERS says: the patterns are git's, the last line that
//! matches holds, and one without owners takes the file from those before it.

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::path::Path;

/// Where it may lie, in the order in which hosts look for it.
const PLACES: [&str; 4] = [".github/CODEOWNERS", ".gitlab/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS"];
/// Larger files are not read.
const LARGEST: u64 = 3 << 20;

/// The owners of the test `test`, whose id begins with its file, in the project at `root`.
pub(super) fn owner_of(root: &Path, test: &str) -> Option<String> {
    let found = PLACES.iter().map(|place| root.join(place)).find(|path| path.is_file())?;
    if found.metadata().ok()?.len() > LARGEST {
        return None;
    }
    let text = std::fs::read_to_string(found).ok()?;
    owner(&text, &normalised(test.split("::").next()?)?)
}

/// A path below the root, as CODEOWNERS spells paths; none if it leaves the root.
fn normalised(path: &str) -> Option<String> {
    let path = path.replace('\\', "/");
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn owner(text: &str, path: &str) -> Option<String> {
    // GitLab's sections name owners for the lines below them that have none.
    let mut of_section = String::new();
    let mut owner = None;
    for line in text.lines() {
        let line = line.split(" #").next().unwrap_or_default().trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with('[') || line.starts_with("^[") {
            let after = line.rsplit_once(']').map_or("", |(_, after)| after);
            of_section = after.trim().to_owned();
            continue;
        }
        let (pattern, owners) = split(line);
        if pattern_of(&pattern).is_some_and(|pattern| matches(&pattern, path)) {
            let owners = if owners.is_empty() { of_section.clone() } else { owners };
            owner = (!owners.is_empty()).then_some(owners);
        }
    }
    owner
}

/// The pattern, in which a blank may be escaped, and the owners.
fn split(line: &str) -> (String, String) {
    let mut escaped = false;
    for (place, c) in line.char_indices() {
        if c.is_whitespace() && !escaped {
            let owners: Vec<&str> = line[place..].split_whitespace().collect();
            return (line[..place].to_owned(), owners.join(" "));
        }
        escaped = c == '\\' && !escaped;
    }
    (line.to_owned(), String::new())
}

fn pattern_of(pattern: &str) -> Option<Gitignore> {
    let mut builder = GitignoreBuilder::new("");
    builder.add_line(None, pattern).ok()?;
    builder.build().ok()
}

fn matches(pattern: &Gitignore, path: &str) -> bool {
    pattern.matched_path_or_any_parents(path, false).is_ignore()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_that_matches_holds() {
        let text = "\
            * @everybody\n\
            # a comment @nobody\n\
            /tests/ @testers @more # why\n\
            /tests/slow/ \n\
            *.js @web\n\
            docs/* docs@example.org\n\
            [ bad pattern @nobody\n\
            /with\\ blank/ @blank\n";
        let check = |path: &str, expect: Option<&str>| {
            assert_eq!(owner(text, path).as_deref(), expect, "{path}");
        };
        check("shop/a.py", Some("@everybody"));
        check("tests/unit/test_a.py", Some("@testers @more"));
        check("x/tests/test_a.py", Some("@everybody"));
        check("tests/slow/test_a.py", None);
        check("tests/a.js", Some("@web"));
        check("docs/a.md", Some("docs@example.org"));
        check("with blank/a.py", Some("@blank"));
        assert_eq!(owner("[Tests] @team\ntests/\n", "tests/a.py").as_deref(), Some("@team"));
        assert_eq!(owner("", "a"), None);
    }

    #[test]
    fn paths_are_normalised_and_do_not_leave_the_root() {
        assert_eq!(normalised("./tests//a.py").as_deref(), Some("tests/a.py"));
        assert_eq!(normalised("tests\\x\\..\\a.py").as_deref(), Some("tests/a.py"));
        assert_eq!(normalised("../a.py"), None);
    }
}
