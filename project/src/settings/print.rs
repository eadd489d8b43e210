//! Settings as a TOML document that says where each value comes from.

use super::setting::Setting;
use super::settled::Settings;
use config::{Value, ValueKind};
use std::fmt::Write as _;

/// All settings as TOML, each with its origin as a comment; secrets are not shown.
pub fn print(settings: &Settings) -> String {
    let mut text = String::new();
    let mut section = "";
    for setting in settings.known() {
        let Some(value) = settings.value(setting.key) else { continue };
        if let ValueKind::Table(table) = &value.kind
            && table.is_empty()
        {
            continue;
        }
        if setting.section() != section {
            section = setting.section();
            let gap = if text.is_empty() { "" } else { "\n" };
            writeln!(text, "{gap}[{section}]").expect("writing to memory");
        }
        entry(&mut text, setting, value);
    }
    text
}

/// A line; of a table one per name, since each may come from elsewhere.
fn entry(text: &mut String, setting: &Setting, value: &Value) {
    if let ValueKind::Table(table) = &value.kind {
        let mut names: Vec<_> = table.iter().collect();
        names.sort_by_key(|(name, _)| *name);
        for (name, value) in names {
            line(text, &format!("{}.{}", setting.name(), quoted(name)), &shown(value), value.origin());
        }
        return;
    }
    let shown = if setting.secret { "\"(secret)\"".to_owned() } else { shown(value) };
    line(text, setting.name(), &shown, value.origin());
}

fn line(text: &mut String, name: &str, value: &str, origin: Option<&str>) {
    let assignment = format!("{name} = {value}");
    writeln!(text, "{assignment:<48} # {}", origin.unwrap_or("unknown")).expect("writing to memory");
}

fn shown(value: &Value) -> String {
    match &value.kind {
        ValueKind::String(text) => quoted(text),
        ValueKind::Array(items) => {
            format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", "))
        }
        ValueKind::Float(number) => format!("{number:?}"),
        other => other.to_string(),
    }
}

/// A JSON string is a TOML basic string, but for DEL.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}
