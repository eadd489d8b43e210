//! Where everything that looks random comes from, and other names that planners share.

/// The file of a test that no listing tells of: what its id says, or the id itself.
pub fn file_of(test: &flakefarm_shared::TestId) -> &str {
    test.own_file().unwrap_or(test.as_str())
}

/// Where a shuffle by `seed` puts `test`; see [`flakefarm_shared::Order::Shuffled`].
pub fn shuffle_key(seed: u64, test: &flakefarm_shared::TestId) -> [u8; 32] {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(format!("{seed}:{test}")).into()
}

/// A number that depends on the sweep's seed and on what it is for, and on nothing else.
pub fn derive_seed(seed: u64, label: &str) -> u64 {
    use sha2::{Digest as _, Sha256};
    let hash = Sha256::digest(format!("{seed}:{label}"));
    u64::from_be_bytes(hash[..8].try_into().expect("a SHA-256 has 32 bytes"))
}
