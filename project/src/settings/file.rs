//! A TOML file as a layer: every value remembers its line. Unknown keys become warnings that suggest
//! a known one; a wrong type or value is an error that names its line.

use super::error::SettingError;
use super::kind::{Fault, Kind};
use super::setting::Setting;
use super::spelling::nearest;
use config::{Map, Value};
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) values: Map<String, Value>,
    pub(super) warnings: Vec<String>,
    /// Secrets by the files that hold them, each with the line that says so.
    pub(super) secret_files: Vec<(&'static Setting, String, String)>,
}

/// Reads the file's text; `path` is for messages.
pub(super) fn read(text: &str, path: &Path, known: &'static [Setting]) -> Result<Found, SettingError> {
    let document = DeTable::parse(text).map_err(|error| SettingError::Syntax {
        path: path.to_owned(),
        line: line_of(text, error.span().map_or(0, |span| span.start)),
        message: error.message().to_owned(),
    })?;
    let reader = Reader { text, path, known };
    let mut found = Found::default();
    let sections = reader.sections();
    // Sections first: a file is read from the outside in, and so are its warnings.
    for (name, _) in document.get_ref().iter() {
        if !sections.contains(&name.get_ref().as_ref()) {
            found.warnings.push(reader.unknown("", name, &sections));
        }
    }
    for section in sections {
        let Some((_, value)) = entry(document.get_ref(), section) else { continue };
        let DeValue::Table(table) = value.get_ref() else {
            let fault = Fault {
                message: "must be a section".to_owned(),
                hint: format!("write `[{section}]`"),
                offset: value.span().start,
            };
            return Err(reader.error(section, fault));
        };
        reader.section(section, table, &mut found)?;
    }
    Ok(found)
}

struct Reader<'a> {
    text: &'a str,
    path: &'a Path,
    known: &'static [Setting],
}

impl Reader<'_> {
    /// In the order of the table, each once.
    fn sections(&self) -> Vec<&'static str> {
        let mut sections = Vec::new();
        for setting in self.known.iter().filter(|setting| setting.in_file) {
            if !sections.contains(&setting.section()) {
                sections.push(setting.section());
            }
        }
        sections
    }

    fn section(&self, section: &str, table: &DeTable<'_>, found: &mut Found) -> Result<(), SettingError> {
        let here: Vec<&'static Setting> =
            self.known.iter().filter(|setting| setting.in_file && setting.section() == section).collect();
        let names: Vec<&str> = here.iter().map(|setting| setting.name()).collect();
        for (key, _) in table.iter() {
            let name = key.get_ref().as_ref();
            let is_secret_file =
                |setting: &&&Setting| setting.secret && name.strip_suffix("_file") == Some(setting.name());
            if !names.contains(&name) && !here.iter().any(|setting| is_secret_file(&setting)) {
                found.warnings.push(self.unknown(section, key, &names));
            }
        }
        for setting in here {
            if setting.secret
                && let Some((_, value)) = entry(table, &format!("{}_file", setting.name()))
            {
                let key = format!("{}_file", setting.key);
                let place = |offset| self.place(offset);
                let path = Kind::Text.of_toml(setting.name(), value, &place);
                let path = path.map_err(|fault| self.error(&key, fault))?.to_string();
                found.secret_files.push((setting, self.place(value.span().start), path));
            }
            let Some((_, value)) = entry(table, setting.name()) else { continue };
            let place = |offset| self.place(offset);
            let kind = setting.kind.of_toml(setting.name(), value, &place).map_err(|mut fault| {
                // What is wrong within a table names its own key first.
                match fault.message.split_once('\0').map(|(key, rest)| (key.to_owned(), rest.to_owned())) {
                    Some((inner, message)) => {
                        fault.message = message;
                        self.error(&format!("{}.{inner}", setting.key), fault)
                    }
                    None => self.error(setting.key, fault),
                }
            })?;
            let origin = self.place(value.span().start);
            found.values.insert(setting.key.to_owned(), Value::new(Some(&origin), kind));
        }
        Ok(())
    }

    fn unknown(&self, section: &str, key: &Spanned<std::borrow::Cow<'_, str>>, known: &[&str]) -> String {
        let name = key.get_ref();
        let elsewhere = self.known.iter().find(|setting| setting.in_file && setting.name() == name.as_ref());
        let advice = match (nearest(name, known), elsewhere) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, Some(setting)) => format!("it belongs under [{}]", setting.section()),
            (None, None) => format!("known here: {}", known.join(", ")),
        };
        let dotted = if section.is_empty() { name.to_string() } else { format!("{section}.{name}") };
        format!("{}: unknown key `{dotted}` is ignored; {advice}", self.place(key.span().start))
    }

    fn place(&self, offset: usize) -> String {
        format!("{}:{}", self.path.display(), line_of(self.text, offset))
    }

    fn error(&self, key: &str, fault: Fault) -> SettingError {
        let place = self.place(fault.offset);
        fault.at(key, &place)
    }
}

fn entry<'a, 'b>(
    table: &'a DeTable<'b>,
    name: &str,
) -> Option<(&'a Spanned<std::borrow::Cow<'b, str>>, &'a Spanned<DeValue<'b>>)> {
    table.iter().find(|(key, _)| key.get_ref() == name)
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
}
