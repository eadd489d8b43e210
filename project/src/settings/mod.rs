//! Settings in layers: defaults, what was detected, a file, the environment, and options on the
//! command line, the later over the earlier. The `config` crate merges them and remembers where each
//! value comes from, so that an error and `--print-config` name the line, the variable or the option.
//!
//! What a setting is called and what it may hold is said once, in a table of [`Setting`]s.

mod file;
mod kind;
mod print;
mod spelling;
mod units;

pub use kind::Kind;
pub use spelling::nearest;
pub use units::{counted, duration_text, parse_duration, parse_size, size_text};

use config::{Config, ConfigError as MergeError, Map, Source, Value, ValueKind};
use kind::Fault;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One setting: what it is called in each layer, and what it may hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setting {
    /// Its key in files, with its section: `limits.memory`.
    pub key: &'static str,
    /// What it may hold.
    pub kind: Kind,
    default: Option<&'static str>,
    variable: Option<&'static str>,
    in_file: bool,
    secret: bool,
}

impl Setting {
    /// A setting without a default that only a file can set.
    pub const fn new(key: &'static str, kind: Kind) -> Self {
        Self { key, kind, default: None, variable: None, in_file: true, secret: false }
    }

    /// With a default, as one would write it.
    pub const fn default(mut self, text: &'static str) -> Self {
        self.default = Some(text);
        self
    }

    /// Also from this environment variable.
    pub const fn variable(mut self, name: &'static str) -> Self {
        self.variable = Some(name);
        self
    }

    /// Not from a file.
    pub const fn not_in_file(mut self) -> Self {
        self.in_file = false;
        self
    }

    /// Never shown; also from a file that holds it and nothing else: the environment variable with
    /// `_FILE` added, or the key with `_file` added, names that file.
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// The environment variable it comes from.
    pub const fn of_variable(&self) -> Option<&'static str> {
        self.variable
    }

    fn section(&self) -> &'static str {
        self.key.split_once('.').map_or("", |(section, _)| section)
    }

    fn name(&self) -> &'static str {
        self.key.split_once('.').map_or(self.key, |(_, name)| name)
    }
}

/// Settings could not be read. The user can correct all of these.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// A file could not be read.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}:{line}: {message}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// What the parser said.
        message: String,
    },
    /// A setting has a value that makes no sense.
    #[error("{place}: `{key}` {message}")]
    Value {
        /// Where it was set: `flakefarm.toml:3`, a variable, or an option.
        place: String,
        /// Which setting, with its section.
        key: String,
        /// What is wrong with its value.
        message: String,
        /// What to write instead.
        hint: String,
    },
}

impl SettingError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            SettingError::Value { hint, .. } => Some(hint),
            SettingError::Read { .. } | SettingError::Syntax { .. } => None,
        }
    }
}

/// Where a value may come from; later ones win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// What holds unless something else is said.
    Default,
    /// What the project's source tree says about itself.
    Detected,
    /// A configuration file.
    File,
    /// Environment variables.
    Environment,
    /// Options on the command line.
    Options,
}

/// Settings being gathered, layer by layer.
#[derive(Debug)]
pub struct Layers {
    known: &'static [Setting],
    values: BTreeMap<Layer, Map<String, Value>>,
    warnings: Vec<String>,
}

impl Layers {
    /// The defaults of these settings.
    pub fn new(known: &'static [Setting]) -> Self {
        let mut layers = Self { known, values: BTreeMap::new(), warnings: Vec::new() };
        for setting in known {
            if let Some(text) = setting.default {
                let kind = setting.kind.of_text(setting.name(), text);
                let kind = kind.expect("a default is a value of its kind");
                layers.insert(Layer::Default, setting.key, "default", kind);
            }
        }
        layers
    }

    fn insert(&mut self, layer: Layer, key: &str, origin: &str, kind: ValueKind) {
        let value = Value::new(Some(&origin.to_owned()), kind);
        self.values.entry(layer).or_default().insert(key.to_owned(), value);
    }

    /// Adds what was found out: a value of the right kind; `origin` says from what.
    pub fn detected(&mut self, key: &str, kind: impl Into<ValueKind>, origin: &str) {
        self.insert(Layer::Detected, key, origin, kind.into());
    }

    /// The same for a table of texts.
    pub fn detected_table(
        &mut self,
        key: &str,
        texts: impl IntoIterator<Item = (String, String)>,
        origin: &str,
    ) {
        let owned = origin.to_owned();
        let table: Map<String, Value> =
            texts.into_iter().map(|(name, text)| (name, Value::new(Some(&owned), text))).collect();
        self.insert(Layer::Detected, key, origin, ValueKind::Table(table));
    }

    /// Adds the text of a TOML file; `path` is for messages. Unknown keys become warnings.
    pub fn file(&mut self, text: &str, path: &Path) -> Result<(), SettingError> {
        let found = file::read(text, path, self.known)?;
        self.warnings.extend(found.warnings);
        for (setting, place, secret_file) in found.secret_files {
            let secret = read_secret(&path.parent().unwrap_or(Path::new(".")).join(secret_file))?;
            self.insert(Layer::File, setting.key, &place, secret.into());
        }
        self.values.entry(Layer::File).or_default().extend(found.values);
        Ok(())
    }

    /// Adds the environment variables that are set; `lookup` gives those that are not empty.
    pub fn environment(&mut self, lookup: &dyn Fn(&str) -> Option<String>) -> Result<(), SettingError> {
        for setting in self.known {
            let Some(variable) = setting.variable else { continue };
            let secret_file = format!("{variable}_FILE");
            if let Some(text) = lookup(variable) {
                self.text(Layer::Environment, setting, variable, &text)?;
            } else if setting.secret
                && let Some(path) = lookup(&secret_file)
            {
                let secret = read_secret(Path::new(&path))?;
                self.insert(Layer::Environment, setting.key, &secret_file, secret.into());
            }
        }
        Ok(())
    }

    /// Adds a value given as `option` on the command line.
    pub fn option(&mut self, key: &str, option: &str, text: &str) -> Result<(), SettingError> {
        let setting = self.setting(key);
        self.text(Layer::Options, setting, option, text)
    }

    /// Adds a secret that is in a file named on the command line.
    pub fn option_file(&mut self, key: &str, option: &str, path: &Path) -> Result<(), SettingError> {
        let secret = read_secret(path)?;
        self.insert(Layer::Options, key, option, secret.into());
        Ok(())
    }

    fn setting(&self, key: &str) -> &'static Setting {
        self.known
            .iter()
            .find(|setting| setting.key == key)
            .expect("only settings of the table are asked for")
    }

    fn text(&mut self, layer: Layer, setting: &Setting, place: &str, text: &str) -> Result<(), SettingError> {
        let kind =
            setting.kind.of_text(setting.name(), text).map_err(|fault| fault.at(setting.key, place))?;
        self.insert(layer, setting.key, place, kind);
        Ok(())
    }

    /// The highest layer so far that sets `key`.
    pub fn layer_of(&self, key: &str) -> Option<Layer> {
        self.values.iter().rev().find(|(_, values)| values.contains_key(key)).map(|(layer, _)| *layer)
    }

    /// Whether this layer sets `key`.
    pub fn is_set_by(&self, layer: Layer, key: &str) -> bool {
        self.values.get(&layer).is_some_and(|values| values.contains_key(key))
    }

    /// What holds so far, without the warnings.
    pub fn clone_settled(&self) -> Settings {
        Self { known: self.known, values: self.values.clone(), warnings: Vec::new() }.settle()
    }

    /// Takes `key` out of every layer: another setting stands in its place.
    pub fn forget(&mut self, key: &str) {
        for values in self.values.values_mut() {
            values.remove(key);
        }
    }

    /// Merges the layers.
    pub fn settle(self) -> Settings {
        let mut layers = BTreeMap::new();
        for (layer, values) in &self.values {
            layers.extend(values.keys().map(|key| (key.clone(), *layer)));
        }
        let merged = self
            .values
            .into_values()
            .map(Gathered)
            .fold(Config::builder(), |builder, layer| builder.add_source(layer));
        let merged = merged.build().expect("values that are held already can be collected");
        Settings { known: self.known, merged: merged.cache, layers, warnings: self.warnings }
    }
}

/// One layer, as the `config` crate wants it.
#[derive(Debug, Clone)]
struct Gathered(Map<String, Value>);

impl Source for Gathered {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, MergeError> {
        Ok(self.0.clone())
    }
}

/// A file that holds a secret and nothing else; a line end after it is not part of it.
fn read_secret(path: &Path) -> Result<String, SettingError> {
    let unreadable = |source| SettingError::Read { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let secret = text.trim_end_matches(['\n', '\r']);
    if secret.is_empty() {
        return Err(unreadable(std::io::Error::other("it is empty")));
    }
    Ok(secret.to_owned())
}

/// What holds in the end, and where each value comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    known: &'static [Setting],
    merged: Value,
    layers: BTreeMap<String, Layer>,
    /// What the user should know: unknown keys, values that are not used.
    pub warnings: Vec<String>,
}

impl Settings {
    fn value(&self, key: &str) -> Option<&Value> {
        debug_assert!(self.known.iter().any(|setting| setting.key == key), "{key} is in the table");
        key.split('.').try_fold(&self.merged, |value, part| match &value.kind {
            ValueKind::Table(table) => table.get(part),
            _ => None,
        })
    }

    /// Where a value comes from: `flakefarm.toml:3`, a variable, an option, `default`.
    pub fn origin(&self, key: &str) -> Option<&str> {
        self.value(key)?.origin()
    }

    /// The layer that a value comes from.
    pub fn layer(&self, key: &str) -> Option<Layer> {
        self.layers.get(key).copied()
    }

    /// Where one name in a table comes from.
    pub fn origin_within(&self, key: &str, name: &str) -> Option<&str> {
        match &self.value(key)?.kind {
            ValueKind::Table(table) => table.get(name)?.origin(),
            _ => None,
        }
    }

    /// A text, or a number as it was written.
    pub fn text(&self, key: &str) -> Option<String> {
        match &self.value(key)?.kind {
            ValueKind::String(text) => Some(text.clone()),
            ValueKind::Table(_) | ValueKind::Array(_) | ValueKind::Nil => None,
            other => Some(other.to_string()),
        }
    }

    /// A list of texts.
    pub fn texts(&self, key: &str) -> Option<Vec<String>> {
        match &self.value(key)?.kind {
            ValueKind::Array(items) => Some(items.iter().map(|item| item.kind.to_string()).collect()),
            _ => None,
        }
    }

    /// A table of texts; empty if it is not set.
    pub fn table(&self, key: &str) -> BTreeMap<String, String> {
        match self.value(key).map(|value| &value.kind) {
            Some(ValueKind::Table(table)) => {
                table.iter().map(|(name, value)| (name.clone(), value.kind.to_string())).collect()
            }
            _ => BTreeMap::new(),
        }
    }

    /// A duration.
    pub fn duration(&self, key: &str) -> Option<Duration> {
        parse_duration(&self.text(key)?)
    }

    /// A size, in bytes.
    pub fn size(&self, key: &str) -> Option<u64> {
        parse_size(&self.text(key)?)
    }

    /// A number.
    pub fn number(&self, key: &str) -> Option<f64> {
        match self.value(key)?.kind {
            ValueKind::Float(number) => Some(number),
            ValueKind::U64(number) => Some(number as f64),
            _ => None,
        }
    }

    /// A whole number that fits; the table's bounds see to that.
    pub fn whole<T: TryFrom<u64>>(&self, key: &str) -> Option<T> {
        match self.value(key)?.kind {
            ValueKind::U64(number) => T::try_from(number).ok(),
            _ => None,
        }
    }

    /// Whether something is so.
    pub fn truth(&self, key: &str) -> Option<bool> {
        match self.value(key)?.kind {
            ValueKind::Boolean(truth) => Some(truth),
            _ => None,
        }
    }

    /// A value in a form of its own; what `parse` says about it is told with its place.
    pub fn parsed<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, SettingError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        parse(&text).map(Some).map_err(|message| SettingError::Value {
            place: self.origin(key).unwrap_or_default().to_owned(),
            key: key.to_owned(),
            message: format!("cannot be {text}"),
            hint: message,
        })
    }

    /// All settings as TOML, each with its origin as a comment; secrets are not shown.
    pub fn print(&self) -> String {
        print::print(self)
    }
}

impl Fault {
    fn at(self, key: &str, place: &str) -> SettingError {
        SettingError::Value {
            place: place.to_owned(),
            key: key.to_owned(),
            message: self.message,
            hint: self.hint,
        }
    }
}

#[cfg(test)]
mod tests;
