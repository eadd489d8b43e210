//! What is in a blob store, and its removal: for whoever knows what is still referred to.

use super::{BlobError, Blobs};
use crate::UnixMicros;
use crate::ids::Digest;
use futures::{Stream, StreamExt};
use object_store::ObjectStoreExt;
use std::io::Read;

/// The first pieces of a blob that are looked at to tell whether it is a document.
const START: usize = 64 << 10;
/// Most bytes of a document that are searched, unpacked.
const DOCUMENT_LIMIT: u64 = 1 << 30;

/// A blob, from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobEntry {
    /// Its name; none: something that was not finished, or does not belong here.
    pub digest: Option<Digest>,
    /// Its path in the store.
    path: object_store::path::Path,
    /// Bytes as stored.
    pub size: u64,
    /// When it was written last, in microseconds since the epoch.
    pub written_at: UnixMicros,
}

impl Blobs {
    /// All that is in the store, in no order.
    pub fn entries(&self) -> impl Stream<Item = Result<BlobEntry, BlobError>> + Send + use<> {
        let root = self.root.clone();
        let prefix = (!root.as_ref().is_empty()).then_some(root);
        self.store.list(prefix.as_ref()).map(|found| {
            let found = found.map_err(listing_failed)?;
            let digest = found.location.filename().and_then(|name| name.parse().ok());
            Ok(BlobEntry {
                digest,
                size: found.size,
                written_at: found.last_modified.timestamp_micros(),
                path: found.location,
            })
        })
    }

    /// Removes what was listed, unless it was written again since.
    pub async fn remove(&self, entry: &BlobEntry) -> Result<Removed, BlobError> {
        let found = match self.store.head(&entry.path).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(Removed::Yes),
            Err(source) => return Err(listing_failed(source)),
        };
        // In seconds: object stores list finer times than they tell of one object.
        if found.last_modified.timestamp() != entry.written_at.div_euclid(1_000_000) {
            return Ok(Removed::WrittenSince);
        }
        match self.store.delete(&entry.path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(Removed::Yes),
            Err(source) => Err(listing_failed(source)),
        }
    }

    /// The digests that a document names, whatever it means by them; none if the blob is missing or no
    /// document: a document is zstd-compressed JSON.
    pub async fn named_in(&self, digest: &Digest) -> Result<Vec<Digest>, BlobError> {
        let (_, pieces) = match self.stream(digest).await {
            Ok(found) => found,
            Err(BlobError::Missing(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut pieces = Box::pin(pieces);
        let mut packed = Vec::new();
        let mut is_document = None;
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(piece) => packed.extend_from_slice(&piece),
                // What is damaged names nothing that could be believed; it is made again.
                Err(BlobError::Damaged(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error),
            }
            if is_document.is_none() && packed.len() >= START {
                is_document = Some(begins_a_document(&packed));
            }
            if is_document == Some(false) {
                return Ok(Vec::new());
            }
        }
        if is_document.is_none() && !begins_a_document(&packed) {
            return Ok(Vec::new());
        }
        let search = move || digests_in(&packed);
        tokio::task::spawn_blocking(search).await.map_err(|error| {
            listing_failed(object_store::Error::Generic { store: "blobs", source: error.into() })
        })
    }
}

/// What became of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It is gone.
    Yes,
    /// Somebody wrote it again, and means to use it.
    WrittenSince,
}

fn listing_failed(source: object_store::Error) -> BlobError {
    BlobError::Store { action: "list", digest: Digest::of(b""), source: source.into() }
}

fn begins_a_document(packed: &[u8]) -> bool {
    let mut first = [0; 1];
    let read = zstd::Decoder::new(packed).and_then(|mut unpacking| unpacking.read_exact(&mut first));
    read.is_ok() && matches!(first[0], b'{' | b'[')
}

/// The digests in a packed document, as far as it can be read.
pub fn digests_in(packed: &[u8]) -> Vec<Digest> {
    let Ok(unpacking) = zstd::Decoder::new(packed) else { return Vec::new() };
    let mut found = Digests::default();
    let mut buffer = vec![0; 64 << 10];
    let mut unpacking = unpacking.take(DOCUMENT_LIMIT);
    while let Ok(length) = unpacking.read(&mut buffer) {
        if length == 0 {
            break;
        }
        found.read(&buffer[..length]);
    }
    found.end()
}

/// Finds digests in text that comes in pieces: 64 hexadecimal digits, no more and no less.
#[derive(Debug, Default)]
pub struct Digests {
    found: Vec<Digest>,
    word: Vec<u8>,
}

impl Digests {
    /// Reads on.
    pub fn read(&mut self, text: &[u8]) {
        for byte in text {
            if matches!(byte, b'0'..=b'9' | b'a'..=b'f') {
                // One more than a digest has tells that it is none.
                if self.word.len() <= 64 {
                    self.word.push(*byte);
                }
            } else {
                self.end_word();
            }
        }
    }

    fn end_word(&mut self) {
        if self.word.len() == 64
            && let Ok(digest) = String::from_utf8_lossy(&self.word).parse()
        {
            self.found.push(digest);
        }
        self.word.clear();
    }

    /// All that were found.
    pub fn end(mut self) -> Vec<Digest> {
        self.end_word();
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;

    #[test]
    fn digests_are_found_wherever_a_text_is_cut() {
        let (one, other) = (Digest::of(b"1"), Digest::of(b"2"));
        let text = format!("{{\"a\":\"{one}\",\"longer\":\"{other}0\",\"b\":[\"{other}\"]}}");
        for cut in 0..text.len() {
            let mut digests = Digests::default();
            digests.read(&text.as_bytes()[..cut]);
            digests.read(&text.as_bytes()[cut..]);
            assert_eq!(digests.end(), [one.clone(), other.clone()]);
        }
    }

    #[tokio::test]
    async fn documents_name_digests_and_nothing_else_does() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&format!("file://{}", directory.path().display())).unwrap();
        let inner = blobs.put("output").await.unwrap();
        let document = blobs.put_json(&vec![inner.to_string()]).await.unwrap();
        let text = blobs.put(format!("[\"{inner}\"]")).await.unwrap();
        assert_eq!(blobs.named_in(&document).await.unwrap(), std::slice::from_ref(&inner));
        assert_eq!(blobs.named_in(&text).await.unwrap(), []);
        assert_eq!(blobs.named_in(&Digest::of(b"missing")).await.unwrap(), []);
        let mut entries: Vec<BlobEntry> = blobs.entries().try_collect().await.unwrap();
        entries.sort_by_key(|entry| entry.size);
        assert_eq!(entries.len(), 3);
        assert_eq!((entries[0].digest.as_ref(), entries[0].size), (Some(&inner), 6));
        assert_eq!(blobs.remove(&entries[0]).await.unwrap(), Removed::Yes);
        assert!(!blobs.contains(&inner).await.unwrap());
        assert_eq!(blobs.remove(&entries[0]).await.unwrap(), Removed::Yes);
    }
}
