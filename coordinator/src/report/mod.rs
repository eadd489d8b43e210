//! What a sweep found, as data ([`model`], the JSON contract) and as text: every renderer is a pure
//! function of a [`Report`] (the page takes the captured outputs too). Nothing here prints, reads a
//! clock or decides a verdict.

mod asides;
pub mod bisection;
pub mod build;
pub mod compared;
pub mod comparison;
pub mod diagnosis;
pub use crate::diagnose::experiment;
mod dates;
pub mod github;
pub mod html;
mod isolation;
pub mod junit;
pub mod markdown;
pub mod model;
mod rate;
mod remarks;
mod reproduce;
mod svg;
pub mod table;
mod timeline;
mod trust;
mod trusting;
mod values;
mod words;

#[cfg(test)]
pub(crate) mod sample;

pub use build::{SweepMeta, build};
pub use model::{Report, Stopped, TestReport, Verdict};
pub use remarks::of_listing;
pub use table::Style;
pub use trusting::{trust_line, trust_short};
