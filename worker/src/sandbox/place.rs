//! Where attempts on this machine find their project, and what their interpreter needs there.

use flakefarm_shared::{InfraError, InfraStage};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// Where programs are looked for last.
pub(super) const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What the description of a prepared place is called.
const DESCRIPTION: &str = "place.json";

/// Where attempts on this machine find their project: a directory with the project's tree, the plugin
/// and this description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The directories that programs are looked for in first.
    pub(crate) path: Vec<String>,
    /// What the interpreter needs of places that attempts do not see otherwise.
    pub(crate) needs: Vec<String>,
}

impl Place {
    pub(crate) fn write(&self, directory: &Path) -> io::Result<()> {
        std::fs::write(directory.join(DESCRIPTION), serde_json::to_vec(self).expect("plain data serialises"))
    }

    pub(crate) fn read(directory: &Path) -> Result<Self, InfraError> {
        let read = std::fs::read(directory.join(DESCRIPTION))
            .and_then(|text| serde_json::from_slice(&text).map_err(io::Error::other));
        // As an engine says it of an image.
        read.map_err(|error| InfraError {
            stage: InfraStage::Sandbox,
            message: format!("No such image: {}: {error}", directory.display()),
        })
    }

    /// PATH of an attempt.
    pub(crate) fn search_path(&self) -> String {
        search_path(self.path.iter().cloned())
    }
}

pub(super) fn search_path(first: impl Iterator<Item = String>) -> String {
    first.chain([SYSTEM_PATH.to_owned()]).collect::<Vec<_>>().join(":")
}

/// Where an interpreter is and what it needs.
pub(crate) fn interpreter(python: &str) -> Result<Place, String> {
    const QUESTION: &str = "import json, os, sys; print(json.dumps([os.path.dirname(sys.executable), \
        sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.dirname(os.path.realpath(sys.executable))]))";
    let asked = Command::new(python).args(["-c", QUESTION]).stdin(Stdio::null()).output();
    let answer = asked.map_err(|error| error.to_string())?;
    if !answer.status.success() {
        return Err(String::from_utf8_lossy(&answer.stderr).trim().to_owned());
    }
    let mut found: Vec<String> =
        serde_json::from_slice(&answer.stdout).map_err(|error| format!("it answered nonsense: {error}"))?;
    let path = vec![found.remove(0)];
    found.sort();
    found.dedup();
    Ok(Place { path, needs: found })
}
