//! The laws of the blob store, on a directory.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use flakefarm_shared::Digest;
use flakefarm_shared::blobs::{BlobError, Blobs};

fn store() -> (tempfile::TempDir, Blobs) {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(&format!("file://{}", dir.path().display())).unwrap();
    (dir, blobs)
}

#[tokio::test]
async fn what_is_put_is_got_by_its_digest() {
    let (_dir, blobs) = store();
    for content in [b"".to_vec(), b"some content".to_vec(), vec![7; 3 << 20]] {
        let digest = blobs.put(content.clone()).await.unwrap();
        assert_eq!(digest, Digest::of(&content));
        assert!(blobs.contains(&digest).await.unwrap());
        assert_eq!(blobs.get(&digest).await.unwrap(), content);
    }
}

#[tokio::test]
async fn putting_the_same_content_at_once_and_again_changes_nothing() {
    let (_dir, blobs) = store();
    let puts = (0..16).map(|_| blobs.put(vec![1; 100_000]));
    let digests: Vec<_> = futures::future::join_all(puts).await.into_iter().map(Result::unwrap).collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]));
    assert_eq!(blobs.get(&digests[0]).await.unwrap(), vec![1; 100_000]);
}

#[tokio::test]
async fn a_blob_that_is_not_there_is_missing_and_no_other_error() {
    let (_dir, blobs) = store();
    let digest = Digest::of(b"never stored");
    assert!(!blobs.contains(&digest).await.unwrap());
    assert!(matches!(blobs.get(&digest).await, Err(BlobError::Missing(missing)) if missing == digest));
}

#[tokio::test]
async fn damage_is_found_when_a_blob_is_read() {
    let (dir, blobs) = store();
    let digest = blobs.put(b"sound".to_vec()).await.unwrap();
    let file = dir.path().join(&digest.as_str()[..2]).join(digest.as_str());
    std::fs::write(file, "rotten").unwrap();
    assert!(matches!(blobs.get(&digest).await, Err(BlobError::Damaged(damaged)) if damaged == digest));
}

#[tokio::test]
async fn content_survives_reopening_the_store() {
    let (dir, blobs) = store();
    let digest = blobs.put_json(&vec!["ü", "漢字"]).await.unwrap();
    drop(blobs);
    let again = Blobs::open(&format!("file://{}", dir.path().display())).unwrap();
    let words: Vec<String> = again.get_json(&digest, "a list of words").await.unwrap();
    assert_eq!(words, ["ü", "漢字"]);
}

#[tokio::test]
async fn content_of_another_kind_is_named_in_the_error() {
    let (_dir, blobs) = store();
    let digest = blobs.put(b"no compressed JSON".to_vec()).await.unwrap();
    let error = blobs.get_json::<u32>(&digest, "a number").await.unwrap_err();
    assert!(error.to_string().contains("is not a number"), "{error}");
}

#[test]
fn addresses_that_cannot_be_used_are_refused_by_name() {
    for address in ["nonsense", "file://relative", "ftp://host/path"] {
        let error = Blobs::open(address).unwrap_err();
        assert!(error.to_string().contains(address), "{error}");
    }
}
