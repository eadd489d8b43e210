//! A directory and a bucket against the laws of `contract::blobs`: the bucket on the server at
//! `FLAKEFARM_TEST_S3_ENDPOINT`, each law under a prefix of its own, and once more while that server stumbles.

use flakefarm_shared::Digest;
use flakefarm_shared::blobs::{BlobError, Blobs};
use flakefarm_tests::contract::blobs as laws;
use flakefarm_tests::contract::blobs::Place;
use flakefarm_tests::harness::service;
use flakefarm_tests::stumbling::Stumbling;

macro_rules! both_places {
    ($($law:ident)*) => {
        mod directory {
            use super::*;
            $(#[tokio::test]
            async fn $law() {
                laws::$law(&Place::directory()).await;
            })*
        }
        mod bucket {
            use super::*;
            $(#[tokio::test]
            async fn $law() {
                laws::$law(&Place::bucket()).await;
            })*
        }
    };
}

both_places! {
    what_is_put_is_got_by_its_digest
    putting_the_same_content_at_once_and_again_changes_nothing
    a_blob_that_is_not_there_is_missing_and_no_other_error
    damage_is_found_when_a_blob_is_read
    content_survives_reopening_the_store
    content_of_another_kind_is_named_in_the_error
    what_is_written_in_pieces_is_a_blob_like_any_other
    what_is_given_up_leaves_nothing
    what_is_listed_is_removed_unless_it_was_written_since
    garbage_is_collected_but_for_what_is_leased
}

#[tokio::test]
async fn a_server_that_stumbles_is_asked_again() {
    let server = service("FLAKEFARM_TEST_S3_ENDPOINT");
    let stumbling = Stumbling::before(server.trim_start_matches("http://").trim_end_matches('/'));
    let place = || Place::bucket_at(stumbling.endpoint());
    laws::what_is_put_is_got_by_its_digest(&place()).await;
    laws::what_is_written_in_pieces_is_a_blob_like_any_other(&place()).await;
    laws::a_blob_that_is_not_there_is_missing_and_no_other_error(&place()).await;
    laws::what_is_given_up_leaves_nothing(&place()).await;
    for (fault, count) in stumbling.faults() {
        assert!(count > 0, "no {fault}: the test has shown nothing about it");
    }
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_no_missing_blob() {
    let Place::Bucket { endpoint, prefix, .. } = Place::bucket() else { unreachable!() };
    let blobs = Place::Bucket { endpoint, bucket: prefix.clone(), prefix }.open();
    let error = blobs.put("content").await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("NoSuchBucket"), "{source}");
    let digest = Digest::of(b"content");
    let read = blobs.get(&digest).await.unwrap_err();
    assert!(matches!(read, BlobError::Store { .. }), "{read}");
}

#[test]
fn addresses_that_cannot_be_used_are_refused_by_name() {
    for address in ["nonsense", "file://relative", "ftp://host/path", "s3://"] {
        let error = Blobs::open(address).unwrap_err();
        assert!(error.to_string().contains(address), "{error}");
    }
}
