//! Stores of the embedded farm that are no rows of the coordinator's: adapters of ports that workers use.

pub mod sqlite_samples;
