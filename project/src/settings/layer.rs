//! The layers, in their order.

/// Where a value may come from; later ones win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// What holds unless something else is said.
    Default,
    /// What the project's source tree says about itself.
    Detected,
    /// A configuration file.
    File,
    /// Environment variables.
    Environment,
    /// Options on the command line.
    Options,
}
