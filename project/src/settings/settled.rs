//! What holds in the end, and where each value comes from.

use super::error::SettingError;
use super::layer::Layer;
use super::setting::Setting;
use super::units::{parse_duration, parse_size};
use config::{Value, ValueKind};
use std::collections::BTreeMap;
use std::time::Duration;

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
    pub(super) fn new(
        known: &'static [Setting],
        merged: Value,
        layers: BTreeMap<String, Layer>,
        warnings: Vec<String>,
    ) -> Self {
        Self { known, merged, layers, warnings }
    }

    pub(super) fn known(&self) -> &'static [Setting] {
        self.known
    }

    pub(super) fn value(&self, key: &str) -> Option<&Value> {
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
}
