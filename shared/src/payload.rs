//! Values that travel: inside what refers to them while they are small, in the blob store when they
//! are large. Most specs and reports are a few hundred bytes, and a file for each would cost more than
//! all else that is done with them.

use crate::blobs::{BlobError, Blobs, decode, encode};
use crate::ids::Digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use futures::{StreamExt, TryStreamExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Bytes, compressed, up to which a value travels inside.
const SMALL: usize = 8 << 10;
/// Blobs read or written at the same time.
const AT_ONCE: usize = 32;
/// What the text of a small value begins with.
const INLINE: &str = "zstd:";

/// A value as it is sent and recorded. In text, `zstd:` and the base64 of its compressed JSON, or the
/// digest of its blob.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Payload {
    /// Zstd-compressed JSON.
    Inline(Vec<u8>),
    /// The same, in the blob store.
    Blob(Digest),
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Payload::Inline(packed) => write!(f, "{INLINE}{}", BASE64.encode(packed)),
            Payload::Blob(digest) => digest.fmt(f),
        }
    }
}

/// Text that is neither a small value nor a digest.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is neither an inline value nor a SHA-256 digest")]
pub struct NotAPayload(String);

impl FromStr for Payload {
    type Err = NotAPayload;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NotAPayload(text.chars().take(100).collect());
        match text.strip_prefix(INLINE) {
            Some(packed) => Ok(Payload::Inline(BASE64.decode(packed).map_err(|_| wrong())?)),
            None => Ok(Payload::Blob(text.parse().map_err(|_| wrong())?)),
        }
    }
}

impl TryFrom<String> for Payload {
    type Error = NotAPayload;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Payload> for String {
    fn from(payload: Payload) -> Self {
        payload.to_string()
    }
}

impl Blobs {
    /// Makes a payload of `value`; stores it if it is large.
    pub async fn pack<T: Serialize>(&self, value: &T) -> Result<Payload, BlobError> {
        let packed = encode(value);
        if packed.len() <= SMALL {
            Ok(Payload::Inline(packed))
        } else {
            self.put(packed).await.map(Payload::Blob)
        }
    }

    /// Makes payloads of many values, in their order.
    pub async fn pack_all<T: Serialize>(&self, values: &[T]) -> Result<Vec<Payload>, BlobError> {
        several(values.iter().map(|value| self.pack(value))).await
    }

    /// Reads what [`Blobs::pack`] made. `what` names the expected type in errors.
    pub async fn unpack<T: DeserializeOwned>(
        &self,
        payload: &Payload,
        what: &'static str,
    ) -> Result<T, BlobError> {
        match payload {
            Payload::Inline(packed) => decode(packed).map_err(|source| BlobError::Content {
                digest: Digest::of(packed),
                what,
                source,
            }),
            Payload::Blob(digest) => self.get_json(digest, what).await,
        }
    }

    /// Reads many payloads, in their order. One whose blob is missing or damaged, or holds
    /// something else, is `None`: what it said has to be found out again.
    pub async fn unpack_all<T: DeserializeOwned>(
        &self,
        payloads: &[Payload],
        what: &'static str,
    ) -> Result<Vec<Option<T>>, BlobError> {
        let read = |payload| async move {
            match self.unpack(payload, what).await {
                Ok(value) => Ok(Some(value)),
                Err(BlobError::Missing(_) | BlobError::Damaged(_) | BlobError::Content { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        };
        several(payloads.iter().map(read)).await
    }
}

/// Awaits some of these at a time; what they give comes in their order.
async fn several<T>(
    each: impl Iterator<Item = impl Future<Output = Result<T, BlobError>>>,
) -> Result<Vec<T>, BlobError> {
    let each: Vec<_> = each.collect();
    futures::stream::iter(each).buffered(AT_ONCE).try_collect().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn small_values_travel_inside_and_large_ones_are_stored() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&format!("file://{}", directory.path().display())).unwrap();
        // Digests do not compress.
        let lines = |count: u32| (0..count).map(|n| Digest::of(&n.to_be_bytes())).collect::<Vec<_>>();
        let values = [lines(1), lines(1_000)];
        let payloads = blobs.pack_all(&values).await.unwrap();
        assert!(matches!(payloads[..], [Payload::Inline(_), Payload::Blob(_)]), "{payloads:?}");
        for payload in &payloads {
            assert_eq!(payload.to_string().parse::<Payload>().unwrap(), *payload);
        }
        let [small, Payload::Blob(large)] = &payloads[..] else { unreachable!() };
        let elsewhere = Payload::Blob(Digest::of(b"elsewhere"));
        let asked = [small.clone(), elsewhere, Payload::Blob(large.clone())];
        let found: Vec<Option<Vec<Digest>>> = blobs.unpack_all(&asked, "digests").await.unwrap();
        assert_eq!(found, [Some(lines(1)), None, Some(lines(1_000))]);
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "zstd:?", "zstd", "0123"] {
            assert!(text.parse::<Payload>().is_err(), "{text}");
        }
    }
}
