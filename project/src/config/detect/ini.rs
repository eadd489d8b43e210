//! INI files as Python's tools write them: sections, keys, and values that go on in indented lines.

use std::collections::BTreeMap;

/// Sections with their keys in small letters; a value's lines are joined by line breaks.
#[derive(Debug, Default)]
pub(super) struct Ini {
    sections: BTreeMap<String, BTreeMap<String, String>>,
}

impl Ini {
    pub(super) fn parse(text: &str) -> Self {
        let mut ini = Self::default();
        let mut section = String::new();
        let mut key: Option<String> = None;
        for line in text.lines() {
            let trimmed = line.trim();
            let begun = key.clone().and_then(|key| ini.sections.get_mut(&section)?.get_mut(&key));
            if trimmed.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let (true, Some(value)) = (line.starts_with([' ', '\t']), begun) {
                if !trimmed.starts_with(['#', ';']) {
                    value.push('\n');
                    value.push_str(trimmed);
                }
            } else if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
                section = name.trim().to_owned();
                key = None;
                ini.sections.entry(section.clone()).or_default();
            } else if let Some((name, value)) = trimmed.split_once(['=', ':']) {
                let name = name.trim().to_lowercase();
                let keys = ini.sections.entry(section.clone()).or_default();
                keys.insert(name.clone(), value.trim().to_owned());
                key = Some(name);
            }
        }
        ini
    }

    pub(super) fn has(&self, section: &str) -> bool {
        self.sections.contains_key(section)
    }

    /// The value, with its further lines.
    pub(super) fn get(&self, section: &str, key: &str) -> Option<&str> {
        self.sections.get(section)?.get(key).map(String::as_str)
    }

    /// The lines of a value that say something.
    pub(super) fn lines<'a>(&'a self, section: &str, key: &str) -> impl Iterator<Item = &'a str> {
        self.get(section, key).unwrap_or_default().lines().map(str::trim).filter(|line| !line.is_empty())
    }

    /// The keys of a section with their values.
    pub(super) fn keys(&self, section: &str) -> impl Iterator<Item = (&str, &str)> {
        let keys = self.sections.get(section).into_iter().flatten();
        keys.map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_on_in_indented_lines() {
        let text = "[a]\nx = 1\ny =\n    p\n    # no\n\n    q: 2\nz: w\n[b c]\n# no\n x\n";
        let ini = Ini::parse(text);
        assert_eq!(ini.get("a", "x"), Some("1"));
        assert_eq!(ini.lines("a", "y").collect::<Vec<_>>(), ["p", "q: 2"]);
        assert_eq!(ini.get("a", "z"), Some("w"));
        assert!(ini.has("b c") && !ini.has("c"));
        assert_eq!(ini.keys("a").count(), 3);
    }
}
