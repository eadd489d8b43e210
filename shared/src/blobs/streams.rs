//! Blobs that are too large to hold in memory: written and read piece by piece.

use super::{BlobError, Blobs, read_failed};
use crate::ids::Digest;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use uuid::Uuid;

/// Bytes that are written together; a cloud takes no smaller parts.
const PART: usize = 5 << 20;
/// Parts on their way at once.
const PARTS_AT_ONCE: usize = 1;
/// Most bytes that are put by one request: more would have to be sent anew as a whole when one fails.
pub(super) const IN_ONE: usize = 16 << 20;
/// Where blobs lie until their digest is known.
const STAGING: &str = "uploads";

/// Writes a blob whose digest is known, in parts; it is there when all of them are.
pub(super) async fn put_in_parts(
    store: &Arc<dyn ObjectStore>,
    path: &StorePath,
    content: Bytes,
) -> Result<(), object_store::Error> {
    let mut writer = WriteMultipart::new_with_chunk_size(store.put_multipart(path).await?, PART);
    for start in (0..content.len()).step_by(PART) {
        if let Err(error) = writer.wait_for_capacity(PARTS_AT_ONCE).await {
            // What cannot be dropped either is what a crash leaves.
            let _left = writer.abort().await;
            return Err(error);
        }
        writer.put(content.slice(start..content.len().min(start + PART)));
    }
    writer.finish().await.map(drop)
}

/// A blob that is being written. It must be ended by [`Upload::finish`] or [`Upload::abort`]; what a
/// crash leaves behind lies under `uploads/`.
#[derive(Debug)]
pub struct Upload {
    blobs: Blobs,
    writer: WriteMultipart,
    staging: StorePath,
    hash: Sha256,
    size: u64,
}

impl Blobs {
    /// Begins to write a blob whose digest is not known yet.
    pub async fn upload(&self) -> Result<Upload, BlobError> {
        let staging = self.root.clone().join(STAGING).join(Uuid::now_v7().to_string());
        let begun = self.store.put_multipart(&staging).await;
        let upload = begun.map_err(|source| failed("write", &[], source))?;
        Ok(Upload {
            blobs: self.clone(),
            writer: WriteMultipart::new_with_chunk_size(upload, PART),
            staging,
            hash: Sha256::new(),
            size: 0,
        })
    }

    /// Reads a blob piece by piece, with its size. The last piece is an error if the content does not
    /// match the digest, so a reader must come to the end before it believes what it read.
    pub async fn stream(
        &self,
        digest: &Digest,
    ) -> Result<(u64, impl Stream<Item = Result<Bytes, BlobError>> + Send + use<>), BlobError> {
        let found = self.store.get(&self.path(digest)).await;
        let found = found.map_err(|source| read_failed(digest, source))?;
        let size = found.meta.size;
        let state = (found.into_stream(), Some(Sha256::new()), digest.clone());
        let pieces = futures::stream::unfold(state, |(mut pieces, hash, digest)| async move {
            let mut hash = hash?;
            match pieces.next().await {
                Some(Ok(piece)) => {
                    hash.update(&piece);
                    Some((Ok(piece), (pieces, Some(hash), digest)))
                }
                Some(Err(source)) => {
                    let error =
                        BlobError::Store { action: "read", digest: digest.clone(), source: source.into() };
                    Some((Err(error), (pieces, None, digest)))
                }
                None if hex::encode(hash.finalize()) == digest.as_str() => None,
                None => Some((Err(BlobError::Damaged(digest.clone())), (pieces, None, digest))),
            }
        });
        Ok((size, pieces))
    }
}

impl Upload {
    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The digest of what was written so far.
    pub fn digest(&self) -> Digest {
        hex::encode(self.hash.clone().finalize()).parse().expect("a SHA-256 in hexadecimal")
    }

    /// Writes a piece; waits while earlier ones are on their way.
    pub async fn write(&mut self, piece: Bytes) -> Result<(), BlobError> {
        self.hash.update(&piece);
        self.size += piece.len() as u64;
        self.writer.wait_for_capacity(PARTS_AT_ONCE).await.map_err(|source| failed("write", &[], source))?;
        self.writer.put(piece);
        Ok(())
    }

    /// Gives what was written its name. Storing the same content again changes nothing.
    pub async fn finish(self) -> Result<Digest, BlobError> {
        let Self { blobs, writer, staging, hash, .. } = self;
        let name = hash.finalize();
        let failed = |source| failed("write", &name, source);
        writer.finish().await.map_err(failed)?;
        let digest: Digest = hex::encode(name).parse().expect("a SHA-256 in hexadecimal");
        // Over what is there: it may be damaged. A directory moves it, an object store has no such thing.
        let path = blobs.path(&digest);
        if blobs.is_directory {
            blobs.store.rename(&staging, &path).await.map_err(failed)?;
        } else {
            blobs.store.copy(&staging, &path).await.map_err(failed)?;
            // The blob is there; what stays of its making is collected.
            let _left = blobs.store.delete(&staging).await;
        }
        Ok(digest)
    }

    /// Drops what was written.
    pub async fn abort(self) -> Result<(), BlobError> {
        self.writer.abort().await.map_err(|source| failed("drop", &[], source))
    }
}

/// An error of a blob that is named by what is known of its digest.
fn failed(action: &'static str, name: &[u8], source: object_store::Error) -> BlobError {
    let digest = hex::encode(name).parse().unwrap_or_else(|_| Digest::of(b""));
    BlobError::Store { action, digest, source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;

    #[tokio::test]
    async fn what_is_written_in_pieces_is_a_blob_like_any_other() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&format!("file://{}", directory.path().display())).unwrap();
        let content: Vec<u8> = (0..12_000_000_u32).map(|n| (n % 251) as u8).collect();
        for _ in 0..2 {
            let mut upload = blobs.upload().await.unwrap();
            for piece in content.chunks(100_000) {
                upload.write(Bytes::copy_from_slice(piece)).await.unwrap();
            }
            assert_eq!(upload.size(), content.len() as u64);
            assert_eq!(upload.finish().await.unwrap(), Digest::of(&content));
        }
        assert_eq!(blobs.get(&Digest::of(&content)).await.unwrap(), content);
        let (size, pieces) = blobs.stream(&Digest::of(&content)).await.unwrap();
        let pieces: Vec<Bytes> = pieces.try_collect().await.unwrap();
        assert_eq!((size, pieces.concat()), (content.len() as u64, content));
    }

    #[tokio::test]
    async fn what_is_given_up_or_damaged_leaves_nothing_that_could_be_believed() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&format!("file://{}", directory.path().display())).unwrap();
        let mut upload = blobs.upload().await.unwrap();
        upload.write(Bytes::from_static(b"half")).await.unwrap();
        upload.abort().await.unwrap();
        assert!(!blobs.contains(&Digest::of(b"half")).await.unwrap());
        let staged = directory.path().join(STAGING);
        assert!(!staged.exists() || std::fs::read_dir(staged).unwrap().next().is_none());
        let digest = blobs.put("content").await.unwrap();
        let name = digest.as_str();
        std::fs::write(directory.path().join(&name[..2]).join(name), "forged!").unwrap();
        let (_, pieces) = blobs.stream(&digest).await.unwrap();
        let read: Result<Vec<Bytes>, _> = pieces.try_collect().await;
        assert!(matches!(read, Err(BlobError::Damaged(_))), "{read:?}");
    }
}
