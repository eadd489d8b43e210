//! What a setting may hold: from TOML, which has types, and from text, which has none. What is wrong
//! is said with what to write instead.

use super::error::SettingError;
use super::spelling::nearest;
use super::units::{parse_duration, parse_size};
use config::{Map, Value, ValueKind};
use toml::Spanned;
use toml::de::DeValue;

/// What a setting may hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Any text but the empty one.
    Text,
    /// A list of texts.
    Texts,
    /// Names with texts.
    Table,
    /// A number with its unit: `90s`.
    Duration,
    /// A number of bytes with its unit, at least 16 MiB: `512MiB`.
    Size,
    /// A whole number.
    Whole {
        /// The smallest.
        least: u64,
        /// The largest.
        most: u64,
    },
    /// A number.
    Number {
        /// The smallest.
        least: f64,
        /// The largest.
        most: f64,
        /// What to write, say: `how many CPUs one attempt may use: cpus = 1.0`.
        hint: &'static str,
    },
    /// A number between 0 and 1; as text also `5%`.
    Share,
    /// `true` or `false`.
    Truth,
    /// One of these.
    Word(&'static [&'static str]),
}

/// What is wrong with a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) hint: String,
    /// Where in the file, as a byte offset; of no meaning outside files.
    pub(super) offset: usize,
}

impl Fault {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), offset: 0 }
    }

    /// The error that it is, of this setting and in this place.
    pub(super) fn at(self, key: &str, place: &str) -> SettingError {
        SettingError::Value {
            place: place.to_owned(),
            key: key.to_owned(),
            message: self.message,
            hint: self.hint,
        }
    }

    fn within(mut self, value: &Spanned<DeValue<'_>>) -> Self {
        self.offset = value.span().start;
        self
    }
}

impl Kind {
    /// Reads a value of a file; `name` is the key's last part. `origin` tells the place of an offset.
    pub(super) fn of_toml(
        self,
        name: &str,
        value: &Spanned<DeValue<'_>>,
        origin: &dyn Fn(usize) -> String,
    ) -> Result<ValueKind, Fault> {
        let found = value.get_ref();
        let wrong = |wanted: &str, example: String| Err(wrong_type(found, wanted, &example).within(value));
        match (self, found) {
            (Kind::Text | Kind::Word(_), DeValue::String(text)) => {
                self.of_text(name, text).map_err(|fault| fault.within(value))
            }
            (Kind::Text | Kind::Word(_), _) => wrong("a string", format!("{name} = \"...\"")),
            (Kind::Duration | Kind::Size, _) => {
                let text = found.as_str().unwrap_or_default();
                self.of_text(name, text).map_err(|fault| fault.within(value))
            }
            (Kind::Texts, DeValue::Array(items)) => {
                let mut texts = Vec::new();
                for item in items.iter() {
                    let DeValue::String(text) = item.get_ref() else {
                        let example = format!("{name} = [\"...\", \"...\"]");
                        return Err(wrong_type(item.get_ref(), "a list of strings", &example).within(item));
                    };
                    texts.push(Value::new(Some(&origin(item.span().start)), text.as_ref()));
                }
                Ok(ValueKind::Array(texts))
            }
            (Kind::Texts, _) => wrong("a list of strings", format!("{name} = [\"...\", \"...\"]")),
            (Kind::Table, DeValue::Table(table)) => {
                let mut texts = Map::new();
                for (key, item) in table.iter() {
                    let text = match item.get_ref() {
                        DeValue::String(text) => text.to_string(),
                        DeValue::Integer(number) => number.as_str().to_owned(),
                        other => {
                            let mut fault = wrong_type(other, "a string", "NAME = \"value\"").within(item);
                            fault.message = format!("{}\u{0}{}", key.get_ref(), fault.message);
                            return Err(fault);
                        }
                    };
                    texts.insert(
                        key.get_ref().to_string(),
                        Value::new(Some(&origin(item.span().start)), text),
                    );
                }
                Ok(ValueKind::Table(texts))
            }
            (Kind::Table, _) => wrong("a section", format!("[{name}]` and below it `NAME = \"value\"")),
            (Kind::Whole { .. }, DeValue::Integer(number)) => {
                let parsed = u64::from_str_radix(number.as_str(), number.radix()).ok();
                self.whole(parsed).map_err(|fault| fault.within(value))
            }
            (Kind::Whole { least, .. }, _) => wrong("a whole number", format!("{name} = {}", least.max(1))),
            (Kind::Number { .. } | Kind::Share, DeValue::Float(number)) => self
                .number(name, number.as_str().replace('_', "").parse().ok())
                .map_err(|fault| fault.within(value)),
            (Kind::Number { .. } | Kind::Share, DeValue::Integer(number)) if number.radix() == 10 => {
                self.number(name, number.as_str().parse().ok()).map_err(|fault| fault.within(value))
            }
            (Kind::Number { .. } | Kind::Share, _) => wrong("a number", format!("{name} = 0.5")),
            (Kind::Truth, DeValue::Boolean(truth)) => Ok(ValueKind::Boolean(*truth)),
            (Kind::Truth, _) => wrong("true or false", format!("{name} = false")),
        }
    }

    /// Reads a text, which may stand for any type.
    pub(super) fn of_text(self, name: &str, text: &str) -> Result<ValueKind, Fault> {
        match self {
            Kind::Text if text.is_empty() => Err(Fault::new("is empty", "leave the key out")),
            Kind::Text => Ok(text.into()),
            Kind::Texts => {
                let words = shell_words::split(text)
                    .map_err(|error| Fault::new(error.to_string(), "quote words as a shell wants them"))?;
                Ok(words.into())
            }
            Kind::Table => Err(Fault::new("is a table", "set it in a file")),
            Kind::Duration => match parse_duration(text) {
                Some(duration) if duration.as_millis() == 0 => {
                    Err(Fault::new("must be longer than nothing", duration_hint(name)))
                }
                Some(_) => Ok(text.into()),
                None => Err(Fault::new("is not a duration", duration_hint(name))),
            },
            Kind::Size => match parse_size(text) {
                Some(bytes) if bytes < 16 << 20 => Err(Fault::new("must be at least 16MiB", size_hint(name))),
                Some(_) => Ok(text.into()),
                None => Err(Fault::new("is not a size", size_hint(name))),
            },
            Kind::Whole { .. } => self.whole(text.trim().parse().ok()),
            Kind::Number { .. } => self.number(name, text.trim().parse().ok()),
            Kind::Share => {
                let (number, scale) = match text.trim().strip_suffix('%') {
                    Some(number) => (number, 100.0),
                    None => (text.trim(), 1.0),
                };
                self.number(name, number.trim().parse::<f64>().ok().map(|number| number / scale))
            }
            Kind::Truth => match text {
                "true" | "1" | "yes" => Ok(true.into()),
                "false" | "0" | "no" => Ok(false.into()),
                _ => Err(Fault::new(format!("must be true or false, not \"{text}\""), "write true or false")),
            },
            Kind::Word(words) if words.contains(&text) => Ok(text.into()),
            Kind::Word(_) if text.is_empty() => Err(Fault::new("is empty", "leave the key out")),
            Kind::Word(words) => {
                let hint = match nearest(text, words) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("choose one of {}", words.join(", ")),
                };
                Err(Fault::new(format!("cannot be \"{text}\""), hint))
            }
        }
    }

    fn whole(self, parsed: Option<u64>) -> Result<ValueKind, Fault> {
        let Kind::Whole { least, most } = self else { unreachable!("only asked of whole numbers") };
        match parsed.filter(|number| (least..=most).contains(number)) {
            Some(number) => Ok(ValueKind::U64(number)),
            None => {
                Err(Fault::new("is out of range", format!("choose a whole number from {least} to {most}")))
            }
        }
    }

    fn number(self, name: &str, parsed: Option<f64>) -> Result<ValueKind, Fault> {
        let (inside, message, hint) = match self {
            Kind::Number { least, most, hint } => (
                parsed.filter(|number| (least..=most).contains(number)),
                format!("must be between {least} and {most}"),
                format!("write {hint}"),
            ),
            _ => (
                parsed.filter(|share| *share > 0.0 && *share < 1.0),
                "must lie between 0 and 1".to_owned(),
                format!("write a fraction: `{name} = 0.05` is 5 %"),
            ),
        };
        inside.map(ValueKind::Float).ok_or_else(|| Fault::new(message, hint))
    }
}

fn duration_hint(name: &str) -> String {
    format!("write a number with its unit: `{name} = \"90s\"` (ms, s, m, h)")
}

fn size_hint(name: &str) -> String {
    format!("write a number with its unit: `{name} = \"512MiB\"` (KiB, MiB, GiB)")
}

fn wrong_type(found: &DeValue<'_>, wanted: &str, example: &str) -> Fault {
    let found = found.type_str();
    let article = if found.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    Fault::new(format!("must be {wanted}, not {article} {found}"), format!("write `{example}`"))
}
