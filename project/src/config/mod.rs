//! What a project is and how to run it: `flakefarm.toml` if there is one, over what can be detected
//! from the source tree.

mod detect;
mod error;
mod keys;
mod load;
mod loaded;
mod template;

pub use error::ConfigError;
pub use keys::{CERTIFICATES_VARIABLE, FILE_NAME, IMAGE_VARIABLE, KEYS};
pub use load::without_project;
pub use loaded::{GivenOption, GivenValue, LoadedProject, ProjectSource};
pub use template::init_text;
