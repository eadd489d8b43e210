//! Settings being gathered, layer by layer, and merged by the `config` crate.

use super::error::SettingError;
use super::file;
use super::layer::Layer;
use super::setting::Setting;
use super::settled::Settings;
use config::{Config, ConfigError as MergeError, Map, Source, Value, ValueKind};
use std::collections::BTreeMap;
use std::path::Path;

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
        Settings::new(self.known, merged.cache, layers, self.warnings)
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
