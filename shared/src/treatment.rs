//! What an attempt is made on: which sources, and in which world. Arms of an experiment differ in it,
//! and whatever is counted is counted by it. What runs, and in which order, is said by scope, selection
//! and order.

use crate::ids::Digest;
use crate::world::World;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

/// A world and a source.
///
/// On the wire the submitted sources in some world are written as that world alone, as they were before
/// there was another source; with another one, as `{"world": …, "source": …}`. A reader that knows worlds
/// only refuses the latter, rather than running the wrong sources.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "serde_json::Value")]
pub struct Treatment {
    /// What is changed around the tests.
    pub world: World,
    /// Which sources are tested.
    pub source: Source,
}

/// The sources that an attempt tests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The snapshot that was submitted: that of the job's context.
    #[default]
    Submitted,
    /// Another snapshot (a revision, a patched tree), by the digest of its archive.
    Snapshot(Digest),
}

impl Treatment {
    /// The submitted sources, nothing changed around the tests.
    pub const PLAIN: Treatment = Treatment { world: World::Plain, source: Source::Submitted };

    /// The submitted sources in `world`.
    pub fn under(world: World) -> Self {
        Self { world, source: Source::Submitted }
    }

    /// The submitted sources, nothing changed around the tests: what the rate of a test is about.
    pub fn is_plain(&self) -> bool {
        self.other_source().is_none() && self.world.is_plain()
    }

    /// The world, if it is not the plain one and the sources are the submitted ones: two treatments that
    /// differ in their sources say nothing of a world.
    pub fn other_world(&self) -> Option<World> {
        (self.other_source().is_none() && !self.world.is_plain()).then_some(self.world)
    }

    /// The snapshot, if it is not the submitted one.
    pub fn other_source(&self) -> Option<&Digest> {
        match &self.source {
            Source::Submitted => None,
            Source::Snapshot(digest) => Some(digest),
        }
    }
}

impl Serialize for Treatment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.source {
            Source::Submitted => self.world.serialize(serializer),
            source @ Source::Snapshot(_) => {
                let mut fields = serializer.serialize_struct("Treatment", 2)?;
                fields.serialize_field("world", &self.world)?;
                fields.serialize_field("source", source)?;
                fields.end()
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WithSource {
    #[serde(default)]
    world: World,
    source: Source,
}

impl TryFrom<serde_json::Value> for Treatment {
    type Error = serde_json::Error;

    fn try_from(value: serde_json::Value) -> Result<Self, Self::Error> {
        if value.get("source").is_some() {
            let WithSource { world, source } = serde_json::from_value(value)?;
            return Ok(Self { world, source });
        }
        serde_json::from_value(value).map(Self::under)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::HashSeed;

    #[test]
    fn treatments_survive_json_and_worlds_alone_are_read_and_written_as_ever() {
        let snapshot = Source::Snapshot(Digest::of(b"patched"));
        for world in World::catalogue().iter().copied().chain([World::Plain]) {
            let submitted = Treatment::under(world);
            let text = serde_json::to_string(&submitted).unwrap();
            assert_eq!(text, serde_json::to_string(&world).unwrap());
            assert_eq!(serde_json::from_str::<Treatment>(&text).unwrap(), submitted);

            let patched = Treatment { world, source: snapshot.clone() };
            let text = serde_json::to_string(&patched).unwrap();
            assert_eq!(serde_json::from_str::<Treatment>(&text).unwrap(), patched);
            serde_json::from_str::<World>(&text).expect_err("a reader of worlds refuses other sources");
        }
    }

    #[test]
    fn only_the_submitted_sources_with_nothing_changed_are_plain() {
        let other = Source::Snapshot(Digest::of(b"patched"));
        let salted = World::HashSeed(HashSeed::Random);
        assert!(Treatment::PLAIN.is_plain());
        assert_eq!(Treatment::under(salted).other_world(), Some(salted));
        for world in [World::Plain, salted] {
            let patched = Treatment { world, source: other.clone() };
            assert!(!patched.is_plain());
            assert_eq!(patched.other_world(), None);
        }
    }
}
