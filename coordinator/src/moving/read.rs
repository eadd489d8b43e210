//! Reads an archive that anybody may have made: bounded, each blob held to its name, and checked as a whole
//! before anything of it is believed.

use super::{
    BLOBS, END, End, LARGEST_ENTRY, MANIFEST, MOST_SWEEPS, Manifest, MovedSweep, MovingError, SWEEPS, VERSION,
};
use bytes::Bytes;
use flakefarm_shared::{Digest, UnixMicros};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// An archive in a file.
#[derive(Debug)]
pub struct Archive(File);

/// What an archive holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Whose sweeps.
    pub projects: BTreeSet<String>,
    /// How many.
    pub sweeps: u64,
    /// How many blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A piece of an archive.
#[derive(Debug)]
pub enum Piece {
    /// A blob, of that digest.
    Blob(Digest, Bytes),
    /// A sweep; its blobs came before it.
    Sweep(Box<MovedSweep>),
}

impl Archive {
    /// In this file, which nobody changes meanwhile.
    pub fn of(file: File) -> Self {
        Self(file)
    }

    /// Reads all of it and says what it holds; an error if anything is wrong with it. `now` bounds what it may
    /// say of times.
    pub fn check(&mut self, now: UnixMicros) -> Result<Found, MovingError> {
        let mut found = Found::default();
        self.pieces(|piece| {
            match piece {
                Piece::Blob(_, content) => {
                    found.blobs += 1;
                    found.bytes += content.len() as u64;
                }
                Piece::Sweep(sweep) => {
                    if let Some(why) = sweep.nonsense(now) {
                        return Err(MovingError::Nonsense { sweep: sweep.id, why });
                    }
                    found.sweeps += 1;
                    found.projects.insert(sweep.project.clone());
                }
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Reads it from its beginning, piece by piece.
    pub fn pieces(
        &mut self,
        mut take: impl FnMut(Piece) -> Result<(), MovingError>,
    ) -> Result<(), MovingError> {
        let unreadable = MovingError::Unreadable;
        self.0.seek(SeekFrom::Start(0))?;
        let mut archive = tar::Archive::new(&mut self.0);
        let (mut begun, mut sweeps, mut blobs) = (false, 0, 0);
        for entry in archive.entries().map_err(|error| unreadable(error.to_string()))? {
            // What it holds instead is not repeated.
            let damaged = if begun { "it is damaged, or was cut off" } else { "it is no archive" };
            let mut entry = entry.map_err(|_| unreadable(damaged.to_owned()))?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let size = entry.header().entry_size().map_err(|error| unreadable(error.to_string()))?;
            if !entry.header().entry_type().is_file() || entry.size() > LARGEST_ENTRY || size > LARGEST_ENTRY
            {
                return Err(unreadable(format!("its entry `{}` is no file, or too large", shown(&name))));
            }
            let mut content = Vec::new();
            // What the header says of the size bounds what is read.
            (&mut entry)
                .take(LARGEST_ENTRY)
                .read_to_end(&mut content)
                .map_err(|error| unreadable(error.to_string()))?;
            if !begun {
                let manifest: Manifest = match name.as_str() {
                    MANIFEST => parse(&name, &content)?,
                    _ => return Err(unreadable("it does not begin as one".to_owned())),
                };
                if manifest.v != VERSION {
                    return Err(MovingError::Later(manifest.v));
                }
                begun = true;
            } else if let Some(digest) = name.strip_prefix(BLOBS) {
                let actual = Digest::of(&content);
                if actual.as_str() != digest {
                    return Err(MovingError::Damaged(shown(digest)));
                }
                blobs += 1;
                take(Piece::Blob(actual, content.into()))?;
            } else if name.starts_with(SWEEPS) {
                sweeps += 1;
                if sweeps > MOST_SWEEPS {
                    return Err(unreadable(format!("it has more than {MOST_SWEEPS} sweeps")));
                }
                take(Piece::Sweep(Box::new(parse(&name, &content)?)))?;
            } else if name == END {
                let end: End = parse(&name, &content)?;
                if end == (End { sweeps, blobs }) {
                    return Ok(());
                }
                return Err(unreadable("it lacks some of what was written".to_owned()));
            } else {
                return Err(unreadable(format!("it has an entry `{}`", shown(&name))));
            }
        }
        Err(unreadable("it was cut off".to_owned()))
    }
}

fn parse<T: serde::de::DeserializeOwned>(name: &str, content: &[u8]) -> Result<T, MovingError> {
    serde_json::from_slice(content)
        .map_err(|error| MovingError::Unreadable(format!("its entry `{}`: {error}", shown(name))))
}

/// A name that somebody else chose.
fn shown(name: &str) -> String {
    name.chars().take(100).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::SweepState;
    use crate::experiment::JobKey;
    use crate::moving::MovedJob;
    use flakefarm_shared::{Class, JobId, Payload, SweepId, now_micros};
    use std::io::Write as _;

    fn sweep() -> MovedSweep {
        let id = SweepId::new();
        MovedSweep {
            id,
            project: "shop".to_owned(),
            revision: None,
            question: "{}".to_owned(),
            context: Digest::of(b"context"),
            class: Class::Bulk,
            seed: 1,
            source: "here".to_owned(),
            created_at: now_micros() - 1,
            state: SweepState::Answered,
            listing: None,
            report: None,
            finished_at: now_micros(),
            jobs: vec![MovedJob {
                id: JobKey::LIST.id(id),
                key: JobKey::LIST.to_string(),
                class: Class::Bulk,
                spec: Payload::Inline(Vec::new()),
                attempts: 0,
                report: Payload::Inline(Vec::new()),
            }],
        }
    }

    fn archive(entries: &[(&str, Vec<u8>)]) -> Archive {
        let mut builder = tar::Builder::new(tempfile::tempfile().unwrap());
        for (name, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, content.as_slice()).unwrap();
        }
        let mut file = builder.into_inner().unwrap();
        file.flush().unwrap();
        Archive::of(file)
    }

    fn json<T: serde::Serialize>(value: &T) -> Vec<u8> {
        serde_json::to_vec(value).unwrap()
    }

    #[test]
    fn only_a_whole_archive_of_what_can_be_is_believed() {
        let manifest = ("flakefarm-export", json(&Manifest { v: VERSION, written_by: "a".to_owned() }));
        let end = |sweeps, blobs| ("end", json(&End { sweeps, blobs }));
        let name = format!("blobs/{}", Digest::of(b"content"));
        let blob = (name.as_str(), b"content".to_vec());
        let of = |sweep: &MovedSweep| ("sweeps/a", json(sweep));
        let good = sweep();
        let entries = [manifest.clone(), blob.clone(), of(&good), end(1, 1)];
        let found = archive(&entries).check(now_micros()).unwrap();
        assert_eq!((found.sweeps, found.blobs, found.bytes), (1, 1, 7));
        assert!(found.projects.contains("shop"));

        let forged = (name.as_str(), b"other".to_vec());
        let foreign = {
            let mut sweep = sweep();
            sweep.jobs[0].id = JobId::new();
            sweep
        };
        let running = MovedSweep { state: SweepState::Running, ..sweep() };
        let early = MovedSweep { finished_at: 1, ..sweep() };
        let later = ("flakefarm-export", json(&Manifest { v: 2, written_by: "a".to_owned() }));
        for (entries, said) in [
            (vec![], "was cut off"),
            (vec![manifest.clone(), blob.clone(), of(&good)], "was cut off"),
            (vec![manifest.clone(), of(&good), end(1, 1)], "lacks some"),
            (vec![blob.clone(), end(0, 1)], "does not begin"),
            (vec![later, end(0, 0)], "of version 2"),
            (vec![manifest.clone(), forged, end(0, 1)], "another digest"),
            (vec![manifest.clone(), of(&foreign), end(1, 0)], "of another sweep"),
            (vec![manifest.clone(), of(&running), end(1, 0)], "has not ended"),
            (vec![manifest.clone(), of(&early), end(1, 0)], "make no sense"),
            (vec![manifest.clone(), ("more", vec![]), end(0, 0)], "an entry `more`"),
            (vec![manifest, ("sweeps/a", b"{".to_vec()), end(1, 0)], "sweeps/a"),
        ] {
            let error = archive(&entries).check(now_micros()).unwrap_err();
            assert!(error.to_string().contains(said), "{said}: {error}");
        }
    }
}
