//! What can be wrong with a project's configuration; each with a hint where one helps.

use crate::settings::SettingError;
use std::path::PathBuf;

/// A project could not be loaded. The user can correct all of these.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no such directory.
    #[error("`{}` is not a directory", root.display())]
    NoDirectory {
        /// The would-be root.
        root: PathBuf,
    },
    /// A setting, or the file it is in.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A certificate file holds no certificate.
    #[error("`{}` holds no PEM certificate", path.display())]
    NotCertificates {
        /// Which file.
        path: PathBuf,
    },
    /// Nothing in the tree looks like tests.
    #[error("no tests found in `{}`", root.display())]
    NoTests {
        /// The root that was searched.
        root: PathBuf,
    },
}

impl ConfigError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            ConfigError::NoDirectory { .. } => "give the root of the project's source tree".to_owned(),
            ConfigError::Setting(error) => return error.hint().map(str::to_owned),
            ConfigError::NotCertificates { .. } => {
                "it must contain `-----BEGIN CERTIFICATE-----`; a DER file is converted by \
                 `openssl x509 -inform der -in FILE -out FILE.pem`"
                    .to_owned()
            }
            ConfigError::NoTests { .. } => {
                "flakefarm looks for pytest settings, a tests directory or files named test_*.py; \
                 `flakefarm init` writes a flakefarm.toml in which you can say where tests are"
                    .to_owned()
            }
        })
    }
}
