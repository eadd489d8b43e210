//! How a test framework is listed, run and read. A framework is a plugin that runs inside the
//! sandbox and writes events, and a reader of these events. Nothing here knows containers.

mod bounds;
mod ending;
pub mod events;
pub mod pytest;
pub mod reader;
pub mod seal;
