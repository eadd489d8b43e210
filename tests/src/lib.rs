//! Harness, contract suites and fixtures of the end-to-end tests. Nothing here ships.

pub mod broker;
pub mod contract;
pub mod dice;
pub mod eventually;
pub mod farm;
pub mod faultfarm;
pub mod harness;
pub mod plugin;
pub mod ports;
pub mod relay;
pub mod stumbling;
