//! What CI already knows: reports in foreign formats become runs of this farm's history.

pub mod case;
pub mod ci;
pub mod counts;
pub mod ctrf;
pub mod junit;
pub mod names;
mod record;
mod scanner;
mod shortened;
mod utf16;
mod when;

pub use record::{IngestError, Ingested, MOST_CASES, News, SUMMED_ANYWAY, SentReport, ingest};
