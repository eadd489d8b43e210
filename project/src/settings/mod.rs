//! Settings in layers: defaults, what was detected, a file, the environment, and options on the
//! command line, the later over the earlier. The `config` crate merges them and remembers where each
//! value comes from, so that an error and `--print-config` name the line, the variable or the option.
//!
//! What a setting is called and what it may hold is said once, in a table of [`Setting`]s.

mod error;
mod file;
mod kind;
mod layer;
mod layers;
mod print;
mod setting;
mod settled;
mod spelling;
mod units;

pub use error::SettingError;
pub use kind::Kind;
pub use layer::Layer;
pub use layers::Layers;
pub use print::print;
pub use setting::Setting;
pub use settled::Settings;
pub use spelling::nearest;
pub use units::{counted, duration_text, parse_duration, parse_size, size_about, size_text};

#[cfg(test)]
mod tests;
