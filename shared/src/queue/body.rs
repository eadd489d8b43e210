//! Bodies on the queue: JSON, versioned. Both adapters carry bytes and read them here, so that what
//! cannot be read is parked alike.

use crate::WIRE_VERSION;
use crate::message::{Control, JobMessage, WorkerMessage};
use serde::{Serialize, de::DeserializeOwned};

/// What crosses the queue.
pub(super) trait Body: Serialize + DeserializeOwned {
    /// Its [`WIRE_VERSION`], where it carries one.
    fn version(&self) -> u32;
}

impl Body for JobMessage {
    fn version(&self) -> u32 {
        self.v
    }
}

impl Body for WorkerMessage {
    fn version(&self) -> u32 {
        match self {
            WorkerMessage::JobEnded { v, .. }
            | WorkerMessage::Beat { v, .. }
            | WorkerMessage::Ask { v, .. } => *v,
        }
    }
}

impl Body for Control {
    /// Controls are hints without a version: what cannot be read is dropped.
    fn version(&self) -> u32 {
        WIRE_VERSION
    }
}

pub(super) fn encode<T: Body>(message: &T) -> Vec<u8> {
    serde_json::to_vec(message).expect("messages have string keys and no fallible serializers")
}

/// The message, or why it cannot be read, for the log.
pub(super) fn decode<T: Body>(body: &[u8]) -> Result<T, String> {
    let message: T = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if message.version() == WIRE_VERSION {
        Ok(message)
    } else {
        Err(format!("it has version {}, this program reads version {WIRE_VERSION}", message.version()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SweepId;

    #[test]
    fn control_round_trips() {
        let control = Control::Cancel { sweep: SweepId::new() };
        assert_eq!(decode::<Control>(&encode(&control)), Ok(control));
    }

    #[test]
    fn foreign_version_and_garbage_are_refused() {
        let beat = |v: u32| {
            format!(
                r#"{{"beat":{{"v":{v},"worker":"w","at":1,"slots":1,"version":"0","jobs":[],"draining":false}}}}"#
            )
        };
        assert!(decode::<WorkerMessage>(beat(WIRE_VERSION).as_bytes()).is_ok());
        let refused = decode::<WorkerMessage>(beat(WIRE_VERSION + 1).as_bytes()).expect_err("foreign");
        assert!(refused.contains("version 2"), "{refused}");
        assert!(decode::<WorkerMessage>(b"{").is_err());
    }
}
