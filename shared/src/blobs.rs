//! Content-addressed blobs: snapshots, outputs, and whatever is too large to travel otherwise, stored once by digest, in a
//! directory or an object store.

mod failure;
mod keeping;
mod streams;

pub use failure::StoreFailure;
pub use keeping::{BlobEntry, Digests, Removed, digests_in};
pub use streams::Upload;

use crate::ids::Digest;
use crate::metrics::timed;
use bytes::Bytes;
use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::io::Read;
use std::sync::Arc;
use url::Url;

/// A blob store. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    root: StorePath,
    /// What lies there can be moved.
    is_directory: bool,
}

/// A blob could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The store's address makes no sense to us.
    #[error("blob store address `{address}` cannot be used")]
    Address {
        /// The address.
        address: String,
        /// Why.
        #[source]
        source: StoreFailure,
    },
    /// The store refused.
    #[error("failed to {action} blob {digest}")]
    Store {
        /// Reading or writing.
        action: &'static str,
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: StoreFailure,
    },
    /// No such blob.
    #[error("blob {0} is not in the store")]
    Missing(Digest),
    /// The content does not match its name.
    #[error("blob {0} is damaged: its content has another digest")]
    Damaged(Digest),
    /// The content is not what it should be.
    #[error("blob {digest} is not {what}")]
    Content {
        /// Which.
        digest: Digest,
        /// What was expected.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Blobs {
    /// Opens the store at `address`: `file:///directory` (made if absent), `s3://bucket/prefix`, `gs://bucket/prefix`
    /// or `az://container/prefix`, with credentials from variables that begin with `AWS_`, `GOOGLE_` or `AZURE_`.
    /// Nobody is asked yet.
    pub fn open(address: &str) -> Result<Self, BlobError> {
        Self::open_with(address, settings_among(std::env::vars_os()))
    }

    /// The same with the settings of an object store from elsewhere than the environment: `("aws_endpoint", "http://…")`.
    pub fn open_with(
        address: &str,
        settings: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, BlobError> {
        let wrong = |source: object_store::Error| BlobError::Address {
            address: address.to_owned(),
            source: source.into(),
        };
        let generic = |source: Box<dyn std::error::Error + Send + Sync>| {
            wrong(object_store::Error::Generic { store: "blobs", source })
        };
        let url = Url::parse(address).map_err(|e| generic(e.into()))?;
        if url.scheme() == "file" {
            let path = url.to_file_path().map_err(|()| generic("not an absolute path".into()))?;
            std::fs::create_dir_all(&path).map_err(|e| generic(e.into()))?;
            // Nothing waits for the disk: files survive the end of any process, and one that a power cut
            // takes or tears is found out by its digest and its work done again, as for the database.
            let store = object_store::local::LocalFileSystem::new_with_prefix(path).map_err(wrong)?;
            return Ok(Self { store: Arc::new(store), root: StorePath::default(), is_directory: true });
        }
        let defaults = PATIENCE.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let settings = defaults.into_iter().chain(settings);
        let (store, root) = object_store::parse_url_opts(&url, settings).map_err(wrong)?;
        Ok(Self { store: Arc::from(store), root, is_directory: false })
    }

    fn path(&self, digest: &Digest) -> StorePath {
        let name = digest.as_str();
        self.root.clone().join(&name[..2]).join(name)
    }

    /// Stores `content` and returns its name. Storing the same content again changes nothing, but that it is
    /// written anew from time to time: so whoever collects what nobody refers to sees that somebody will.
    pub async fn put(&self, content: impl Into<Bytes>) -> Result<Digest, BlobError> {
        timed("blobs", "put", self.put_bytes(content.into())).await
    }

    async fn put_bytes(&self, content: Bytes) -> Result<Digest, BlobError> {
        let digest = Digest::of(&content);
        let path = self.path(&digest);
        let failed = |source: object_store::Error| BlobError::Store {
            action: "write",
            digest: digest.clone(),
            source: source.into(),
        };
        match self.store.head(&path).await {
            Ok(found) if found.size == content.len() as u64 && is_fresh(&found) => return Ok(digest),
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
        if content.len() <= streams::IN_ONE {
            self.store.put(&path, content.into()).await.map_err(failed)?;
        } else {
            streams::put_in_parts(&self.store, &path, content).await.map_err(failed)?;
        }
        Ok(digest)
    }

    /// Reads a blob and checks it against its name. A damaged one is removed, so that it can be stored
    /// again.
    pub async fn get(&self, digest: &Digest) -> Result<Bytes, BlobError> {
        timed("blobs", "get", self.get_bytes(digest)).await
    }

    async fn get_bytes(&self, digest: &Digest) -> Result<Bytes, BlobError> {
        let failed = |source| read_failed(digest, source);
        let found = self.store.get(&self.path(digest)).await.map_err(failed)?;
        let content = found.bytes().await.map_err(failed)?;
        if Digest::of(&content) == *digest {
            return Ok(content);
        }
        self.store.delete(&self.path(digest)).await.map_err(failed)?;
        Err(BlobError::Damaged(digest.clone()))
    }

    /// Whether a blob is there.
    pub async fn contains(&self, digest: &Digest) -> Result<bool, BlobError> {
        timed("blobs", "find", async {
            match self.store.head(&self.path(digest)).await {
                Ok(_) => Ok(true),
                Err(object_store::Error::NotFound { .. }) => Ok(false),
                Err(source) => {
                    Err(BlobError::Store { action: "find", digest: digest.clone(), source: source.into() })
                }
            }
        })
        .await
    }

    /// Stores `value` as zstd-compressed JSON.
    pub async fn put_json<T: Serialize>(&self, value: &T) -> Result<Digest, BlobError> {
        self.put(encode(value)).await
    }

    /// Reads what [`Blobs::put_json`] stored. `what` names the expected type in errors.
    pub async fn get_json<T: DeserializeOwned>(
        &self,
        digest: &Digest,
        what: &'static str,
    ) -> Result<T, BlobError> {
        let packed = self.get(digest).await?;
        decode(&packed).map_err(|source| BlobError::Content { digest: digest.clone(), what, source })
    }
}

/// Why a blob could not be read. A bucket that is not there says nothing about its blobs.
fn read_failed(digest: &Digest, source: object_store::Error) -> BlobError {
    /// As S3 and Google, and as Azure call it.
    const NO_STORE: [&str; 2] = ["NoSuchBucket", "ContainerNotFound"];
    match source {
        object_store::Error::NotFound { source, .. }
            if !NO_STORE.iter().any(|code| source.to_string().contains(code)) =>
        {
            BlobError::Missing(digest.clone())
        }
        source => BlobError::Store { action: "read", digest: digest.clone(), source: source.into() },
    }
}

/// How long a request to an object store may take: a large blob is read for minutes, but a server that says
/// nothing is asked again. What the environment says comes after these.
const PATIENCE: [(&str, &str); 2] = [("timeout", "1h"), ("read_timeout", "30s")];

/// The settings of object stores among variables: those that say by their name whose they are. An `ENDPOINT`, a
/// `REGION` or a `TOKEN` is somebody else's.
fn settings_among(variables: impl Iterator<Item = (OsString, OsString)>) -> Vec<(String, String)> {
    const PREFIXES: [&str; 3] = ["aws_", "google_", "azure_"];
    /// Where a machine in Azure gets its identity.
    const IDENTITY: &str = "identity_endpoint";
    variables
        .filter_map(|(key, value)| Some((key.to_str()?.to_ascii_lowercase(), value.into_string().ok()?)))
        .filter(|(key, _)| key == IDENTITY || PREFIXES.iter().any(|prefix| key.starts_with(prefix)))
        .collect()
}

/// Whether a blob was written so lately that nobody collects it.
fn is_fresh(found: &object_store::ObjectMeta) -> bool {
    let age = crate::now_micros() - found.last_modified.timestamp_micros();
    age < i64::try_from(FRESH.as_micros()).unwrap_or(i64::MAX)
}

/// A blob that is older than this is written again when somebody stores it: a quarter of the least time that
/// blobs are left alone.
const FRESH: std::time::Duration = std::time::Duration::from_secs(900);

/// Most bytes that a compressed value may unpack to: a few bytes can hold gigabytes.
const UNPACKED_LIMIT: u64 = 256 << 20;

/// Zstd-compressed JSON, as [`Blobs::put_json`] stores it.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let json = serde_json::to_vec(value).expect("wire types serialise");
    zstd::encode_all(json.as_slice(), 3).expect("compressing memory to memory")
}

pub(crate) fn decode<T: DeserializeOwned>(
    packed: &[u8],
) -> Result<T, Box<dyn std::error::Error + Send + Sync>> {
    let mut json = Vec::new();
    let mut unpacking = zstd::Decoder::new(packed)?.take(UNPACKED_LIMIT + 1);
    unpacking.read_to_end(&mut json)?;
    if json.len() as u64 > UNPACKED_LIMIT {
        return Err(format!("it unpacks to more than {} MiB", UNPACKED_LIMIT >> 20).into());
    }
    Ok(serde_json::from_slice(&json)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_names_no_cloud_is_no_setting_of_an_object_store() {
        use std::os::unix::ffi::OsStringExt;
        let variables = [
            (OsString::from("AWS_ENDPOINT"), OsString::from("http://objects:8333")),
            ("ENDPOINT".into(), "http://elsewhere".into()),
            ("TOKEN".into(), "of a pipeline".into()),
            ("BUCKET".into(), "other".into()),
            ("AWS_SECRET_ACCESS_KEY".into(), OsString::from_vec(vec![0xff])),
            (OsString::from_vec(vec![0xfe]), "1".into()),
            ("IDENTITY_ENDPOINT".into(), "http://machine".into()),
        ];
        let settings = settings_among(variables.into_iter());
        let keys: Vec<_> = settings.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["aws_endpoint", "identity_endpoint"]);
    }

    #[test]
    fn a_few_bytes_that_unpack_to_gigabytes_are_refused() {
        let bomb = zstd::encode_all(std::io::repeat(b' ').take(UNPACKED_LIMIT + 1), 3).unwrap();
        assert!(bomb.len() < 1 << 20);
        let refused = decode::<u32>(&bomb).unwrap_err();
        assert!(refused.to_string().contains("more than 256 MiB"), "{refused}");
        assert_eq!(decode::<u32>(&encode(&7)).unwrap(), 7);
    }
}
