//! What jobs have made, on disk, while a server is away: one file per publication, written whole or not
//! at all, bounded. The next worker that starts over the same directory delivers what an earlier one,
//! that is gone, could not.

use crate::finished::Finished;
use flakefarm_shared::{Digest, JobId, WIRE_VERSION, WorkerId};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use tracing::{info, warn};

/// Bytes of one worker's files together.
const LARGEST: u64 = 512 << 20;
const LOCK: &str = "lock";
/// Locked while a worker finds its place.
const OPENING: &str = "opening";
const SUFFIX: &str = "zst";

/// A worker's directory below the spool's. Held until it is dropped.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    /// Locked: who holds it lives.
    _lock: File,
}

impl Spool {
    /// Makes or takes over `worker`'s part of the spool at `dir`.
    pub fn open(dir: &Path, worker: &WorkerId) -> io::Result<Self> {
        // Names are chosen by people and may hold anything.
        let own = dir.join(&Digest::of(worker.0.as_bytes()).as_str()[..32]);
        fs::create_dir_all(dir)?;
        // One worker at a time: another one that starts would take over, and remove, what is half made.
        let opening = File::options().create(true).append(true).open(dir.join(OPENING))?;
        opening.lock()?;
        fs::create_dir_all(&own)?;
        let lock = lock(&own)?.ok_or_else(|| {
            io::Error::other(format!("another process works as `{worker}` over {}", dir.display()))
        })?;
        let spool = Self { dir: own, _lock: lock };
        spool.adopt(dir)?;
        Ok(spool)
    }

    /// Takes over what workers that are gone have left.
    fn adopt(&self, dir: &Path) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let theirs = entry?.path();
            if theirs == self.dir || !theirs.is_dir() {
                continue;
            }
            let Some(_gone) = lock(&theirs)? else { continue };
            for file in files(&theirs) {
                if let Some(name) = file.file_name() {
                    fs::rename(&file, self.dir.join(name))?;
                }
            }
            fs::remove_file(theirs.join(LOCK)).ok();
            fs::remove_dir(&theirs).ok();
        }
        Ok(())
    }

    /// What lies here. What cannot be read is set aside under another name.
    pub(crate) fn leftovers(&self) -> Vec<Finished> {
        let mut found = Vec::new();
        for file in files(&self.dir) {
            match read(&file) {
                Ok(finished) => found.push(finished),
                Err(error) => {
                    warn!(file = %file.display(), error = %error, "set aside what cannot be read");
                    fs::rename(&file, file.with_extension("unreadable")).ok();
                }
            }
        }
        found
    }

    /// Keeps it, if there is room; whether it is safe now.
    pub(crate) fn keep(&self, finished: &Finished) -> bool {
        match self.write(finished) {
            Ok(bytes) => {
                info!(job.id = %finished.job, spool.bytes = bytes, "kept on disk what a job has made");
                true
            }
            Err(error) => {
                warn!(job.id = %finished.job, error = %error, "what a job has made is kept in memory only");
                false
            }
        }
    }

    fn write(&self, finished: &Finished) -> io::Result<u64> {
        let json = serde_json::to_vec(finished).map_err(io::Error::other)?;
        let packed = zstd::encode_all(json.as_slice(), 0)?;
        let size = packed.len() as u64;
        let (used, _) = self.usage();
        if used + size > LARGEST {
            return Err(io::Error::other(format!("the spool holds {used} bytes already")));
        }
        let place = self.place(finished.job, finished.publication);
        let unfinished = place.with_extension("new");
        let mut file = File::create(&unfinished)?;
        file.write_all(&packed)?;
        file.sync_all()?;
        fs::rename(&unfinished, &place)?;
        Ok(size)
    }

    /// Bytes and files that lie here.
    pub(crate) fn usage(&self) -> (u64, u64) {
        let sizes: Vec<u64> =
            files(&self.dir).iter().filter_map(|file| Some(fs::metadata(file).ok()?.len())).collect();
        (sizes.iter().sum(), sizes.len() as u64)
    }

    /// Forgets it, if it lies here.
    pub(crate) fn remove(&self, job: JobId, publication: u32) {
        fs::remove_file(self.place(job, publication)).ok();
    }

    fn place(&self, job: JobId, publication: u32) -> PathBuf {
        self.dir.join(format!("{job}-{publication}.{SUFFIX}"))
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == SUFFIX)).collect()
}

fn read(file: &Path) -> io::Result<Finished> {
    let json = zstd::decode_all(File::open(file)?)?;
    let finished: Finished = serde_json::from_slice(&json).map_err(io::Error::other)?;
    if finished.v == WIRE_VERSION {
        Ok(finished)
    } else {
        Err(io::Error::other(format!("it is of version {}", finished.v)))
    }
}

/// The lock of a worker's directory; none if its holder lives.
fn lock(dir: &Path) -> io::Result<Option<File>> {
    let file = File::options().create(true).append(true).open(dir.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Worked;
    use flakefarm_shared::samples::filing::Filing;
    use flakefarm_shared::{JobReport, SweepId};

    fn finished(publication: u32) -> Finished {
        let job = JobId::new();
        let report = JobReport { v: WIRE_VERSION, job, listing: None, attempts: Vec::new() };
        let worked = Worked::Done { filing: Filing::default(), report };
        Finished::of(job, SweepId::new(), publication, worked, false)
    }

    #[test]
    fn what_is_kept_is_found_by_the_next_worker_of_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let name = |text: &str| WorkerId(text.to_owned());
        let first = Spool::open(dir.path(), &name("../a")).unwrap();
        let (one, other) = (finished(1), finished(2));
        assert!(first.keep(&one) && first.keep(&other) && first.keep(&one));
        assert_eq!(first.usage().1, 2);
        first.remove(other.job, 2);
        assert_eq!(first.leftovers(), std::slice::from_ref(&one));
        assert!(Spool::open(dir.path(), &name("../a")).is_err(), "its holder lives");
        let neighbour = Spool::open(dir.path(), &name("b")).unwrap();
        assert_eq!(neighbour.leftovers(), [], "the living keep theirs");
        drop((first, neighbour));
        let next = Spool::open(dir.path(), &name("c")).unwrap();
        assert_eq!(next.leftovers(), std::slice::from_ref(&one));
        fs::write(next.place(other.job, 1), b"garbage").unwrap();
        assert_eq!(next.leftovers(), [one]);
        let left = fs::read_dir(dir.path()).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir());
        assert_eq!(left.count(), 1, "nothing is left behind");
    }

    #[test]
    fn workers_that_start_and_go_at_the_same_time_take_nothing_from_under_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let work = |number: usize| {
            for round in 0..50 {
                let spool = Spool::open(dir.path(), &WorkerId(format!("{number}-{round}"))).unwrap();
                assert!(spool.keep(&finished(1)));
            }
        };
        std::thread::scope(|scope| {
            for number in 0..8 {
                scope.spawn(move || work(number));
            }
        });
        let last = Spool::open(dir.path(), &WorkerId("last".to_owned())).unwrap();
        assert_eq!(last.leftovers().len(), 8 * 50, "what each has left came to somebody");
    }
}
