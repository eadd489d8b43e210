//! The laws of the blob store, whatever holds it: a directory, or a bucket of an object store.

#![expect(clippy::unwrap_used, reason = "in a test, a failed step is the failure")]

use crate::eventually::eventually;
use crate::harness::service;
use bytes::Bytes;
use flakefarm_coordinator::db::Db;
use flakefarm_coordinator::garbage::{self, Doing, Garbage};
use flakefarm_coordinator::history::retention::HistoryRetention;
use flakefarm_shared::blobs::{BlobEntry, BlobError, Blobs, Removed};
use flakefarm_shared::{Digest, UnixMicros, now_micros};
use futures::TryStreamExt;
use std::time::Duration;
use uuid::Uuid;

const HOUR: UnixMicros = 3_600_000_000;

/// Where the blobs of one law are.
#[derive(Debug)]
pub enum Place {
    /// A directory, removed with it.
    Directory(tempfile::TempDir),
    /// A prefix of its own in a bucket.
    Bucket {
        /// `http://host:port`.
        endpoint: String,
        /// The bucket.
        bucket: String,
        /// The prefix.
        prefix: String,
    },
}

impl Place {
    /// A new directory.
    pub fn directory() -> Self {
        Self::Directory(tempfile::tempdir().unwrap())
    }

    /// A new prefix in the bucket of `make test`.
    pub fn bucket() -> Self {
        Self::bucket_at(service("FLAKEFARM_TEST_S3_ENDPOINT"))
    }

    /// The same, through another address of the server.
    pub fn bucket_at(endpoint: String) -> Self {
        let bucket = service("FLAKEFARM_TEST_S3_BUCKET");
        Self::Bucket { endpoint, bucket, prefix: format!("test-{}", Uuid::now_v7().simple()) }
    }

    /// The store's address, as an operator writes it.
    pub fn address(&self) -> String {
        match self {
            Self::Directory(dir) => format!("file://{}", dir.path().display()),
            Self::Bucket { bucket, prefix, .. } => format!("s3://{bucket}/{prefix}"),
        }
    }

    /// What an operator sets besides.
    pub fn settings(&self) -> Vec<(String, String)> {
        let Self::Bucket { endpoint, .. } = self else { return Vec::new() };
        let settings = [
            ("aws_endpoint", endpoint.as_str()),
            ("aws_allow_http", "true"),
            ("aws_region", "us-east-1"),
            ("aws_access_key_id", "flakefarm"),
            ("aws_secret_access_key", "flakefarm"),
        ];
        settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }

    /// The store.
    pub fn open(&self) -> Blobs {
        // The first one stays.
        let _already_chosen = rustls::crypto::ring::default_provider().install_default();
        Blobs::open_with(&self.address(), self.settings()).unwrap()
    }

    /// Puts other bytes under a blob's name.
    async fn spoil(&self, digest: &Digest, content: &'static str) {
        let name = format!("{}/{digest}", &digest.as_str()[..2]);
        match self {
            Self::Directory(dir) => std::fs::write(dir.path().join(name), content).unwrap(),
            Self::Bucket { endpoint, bucket, prefix } => {
                let client = reqwest::Client::builder().no_proxy().build().unwrap();
                // Somebody's, which is all that the server looks at.
                let signature = "AWS4-HMAC-SHA256 Credential=flakefarm/20260101/us-east-1/s3/aws4_request, \
                                 SignedHeaders=host, Signature=0";
                let put = client.put(format!("{endpoint}/{bucket}/{prefix}/{name}")).body(content);
                put.header("authorization", signature).send().await.unwrap().error_for_status().unwrap();
            }
        }
    }
}

fn some_bytes(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

async fn entries(blobs: &Blobs) -> Vec<BlobEntry> {
    blobs.entries().try_collect().await.unwrap()
}

/// Nothing, little, much, and more than goes at once.
pub async fn what_is_put_is_got_by_its_digest(place: &Place) {
    let blobs = place.open();
    for content in [Vec::new(), b"some content".to_vec(), vec![7; 3 << 20], some_bytes((17 << 20) + 1)] {
        let digest = blobs.put(content.clone()).await.unwrap();
        assert_eq!(digest, Digest::of(&content));
        assert!(blobs.contains(&digest).await.unwrap());
        assert_eq!(blobs.get(&digest).await.unwrap(), content);
    }
    assert_eq!(entries(&blobs).await.len(), 4, "nothing else is there");
}

/// Whoever comes first.
pub async fn putting_the_same_content_at_once_and_again_changes_nothing(place: &Place) {
    let blobs = place.open();
    let puts = (0..16).map(|_| blobs.put(vec![1; 100_000]));
    let digests: Vec<_> = futures::future::join_all(puts).await.into_iter().map(Result::unwrap).collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]));
    assert_eq!(blobs.get(&digests[0]).await.unwrap(), vec![1; 100_000]);
    assert_eq!(entries(&blobs).await.len(), 1);
}

/// Of whatever is asked.
pub async fn a_blob_that_is_not_there_is_missing_and_no_other_error(place: &Place) {
    let blobs = place.open();
    let digest = Digest::of(b"never stored");
    assert!(!blobs.contains(&digest).await.unwrap());
    assert!(matches!(blobs.get(&digest).await, Err(BlobError::Missing(missing)) if missing == digest));
    let streamed = blobs.stream(&digest).await.map(drop);
    assert!(matches!(streamed, Err(BlobError::Missing(missing)) if missing == digest));
}

/// And the blob can be stored again.
pub async fn damage_is_found_when_a_blob_is_read(place: &Place) {
    let blobs = place.open();
    let digest = blobs.put("sound").await.unwrap();
    place.spoil(&digest, "rotten").await;
    let (_, pieces) = blobs.stream(&digest).await.unwrap();
    let read: Result<Vec<Bytes>, _> = pieces.try_collect().await;
    assert!(matches!(read, Err(BlobError::Damaged(damaged)) if damaged == digest));
    assert!(matches!(blobs.get(&digest).await, Err(BlobError::Damaged(damaged)) if damaged == digest));
    assert_eq!(blobs.put("sound").await.unwrap(), digest);
    assert_eq!(blobs.get(&digest).await.unwrap(), "sound");
}

/// Nothing lives in the process alone.
pub async fn content_survives_reopening_the_store(place: &Place) {
    let digest = place.open().put_json(&vec!["ü", "漢字"]).await.unwrap();
    let words: Vec<String> = place.open().get_json(&digest, "a list of words").await.unwrap();
    assert_eq!(words, ["ü", "漢字"]);
}

/// A document of another kind, or none.
pub async fn content_of_another_kind_is_named_in_the_error(place: &Place) {
    let blobs = place.open();
    let digest = blobs.put(b"no compressed JSON".to_vec()).await.unwrap();
    let error = blobs.get_json::<u32>(&digest, "a number").await.unwrap_err();
    assert!(error.to_string().contains("is not a number"), "{error}");
}

/// Nothing, less than a part, parts to the byte, and more: each twice, since the second finds it there.
pub async fn what_is_written_in_pieces_is_a_blob_like_any_other(place: &Place) {
    let blobs = place.open();
    let lengths = [0, 1, 10 << 20, 12_000_001];
    for length in lengths {
        let content = some_bytes(length);
        for _ in 0..2 {
            let mut upload = blobs.upload().await.unwrap();
            for piece in content.chunks(1_234_567) {
                upload.write(Bytes::copy_from_slice(piece)).await.unwrap();
            }
            assert_eq!(upload.size(), length as u64);
            assert_eq!(upload.finish().await.unwrap(), Digest::of(&content));
        }
        let (size, pieces) = blobs.stream(&Digest::of(&content)).await.unwrap();
        let pieces: Vec<Bytes> = pieces.try_collect().await.unwrap();
        assert_eq!(size, length as u64);
        assert!(pieces.concat() == content, "{length} bytes are others");
    }
    let left = entries(&blobs).await;
    assert_eq!(left.len(), lengths.len(), "nothing is left of their making: {left:?}");
}

/// Neither the blob nor its parts.
pub async fn what_is_given_up_leaves_nothing(place: &Place) {
    let blobs = place.open();
    let content = some_bytes(11 << 20);
    let mut upload = blobs.upload().await.unwrap();
    upload.write(content.clone().into()).await.unwrap();
    upload.abort().await.unwrap();
    assert!(!blobs.contains(&Digest::of(&content)).await.unwrap());
    assert_eq!(entries(&blobs).await, []);
}

/// What was written again since it was listed stays: somebody means to use it.
pub async fn what_is_listed_is_removed_unless_it_was_written_since(place: &Place) {
    let blobs = place.open();
    let digest = blobs.put("once").await.unwrap();
    let listed = entries(&blobs).await.remove(0);
    assert_eq!((listed.digest.as_ref(), listed.size), (Some(&digest), 4));
    let again = async || {
        let mut upload = blobs.upload().await.unwrap();
        upload.write(Bytes::from_static(b"once")).await.unwrap();
        upload.finish().await.unwrap();
        blobs.remove(&listed).await.unwrap()
    };
    // Stores tell when something was written in seconds: until the next one begins the two are the same.
    eventually("it is seen that it was written again", Duration::from_secs(60), async || {
        match again().await {
            Removed::WrittenSince => Ok(()),
            Removed::Yes => Err("removed".to_owned()),
        }
    })
    .await;
    assert!(blobs.contains(&digest).await.unwrap());
    let listed = entries(&blobs).await.remove(0);
    assert_eq!(blobs.remove(&listed).await.unwrap(), Removed::Yes);
    assert!(!blobs.contains(&digest).await.unwrap());
    assert_eq!(blobs.remove(&listed).await.unwrap(), Removed::Yes, "twice is once");
}

/// What nothing refers to goes when it is old, but for what somebody leases.
pub async fn garbage_is_collected_but_for_what_is_leased(place: &Place) {
    let state = tempfile::tempdir().unwrap();
    let db = Db::open(&format!("sqlite://{}", state.path().join("farm.db").display())).await.unwrap();
    let blobs = place.open();
    let (leased, garbage) = (blobs.put("leased").await.unwrap(), blobs.put("garbage").await.unwrap());
    let mut left = blobs.upload().await.unwrap();
    left.write(Bytes::from_static(b"more garbage")).await.unwrap();
    let more = left.finish().await.unwrap();
    let keep = HistoryRetention::default();
    let later = now_micros() + i64::try_from(keep.grace.as_micros()).unwrap() + HOUR;
    let collect = async |now, doing| -> Garbage {
        garbage::collect(&db, &blobs, &keep, now, doing, &Digest::of(b"marker")).await.unwrap()
    };
    assert_eq!(collect(now_micros(), Doing::Removing).await.young_blobs, 3);
    db.lease_blob(&leased, later + HOUR).await.unwrap();
    assert_eq!(collect(later, Doing::Looking).await.blobs, 2);
    assert!(blobs.contains(&garbage).await.unwrap(), "looking changes nothing");
    let collected = collect(later, Doing::Removing).await;
    assert_eq!((collected.blobs, collected.blob_bytes, collected.young_blobs), (2, 19, 1), "{collected:?}");
    assert!(blobs.contains(&leased).await.unwrap());
    assert!(!blobs.contains(&garbage).await.unwrap() && !blobs.contains(&more).await.unwrap());
    assert_eq!(
        collect(later + 2 * HOUR, Doing::Removing).await.blobs,
        1,
        "a lease that ran out holds nothing"
    );
    assert_eq!(entries(&blobs).await, []);
}
