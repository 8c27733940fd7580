//! Why an operation refuses what it was asked for, and which of its parameters that is about.

/// An operation's refusal of one of its parameters. Parameters are called as in the command's syntax, so that the CLI can say
/// at which word the mistake is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refusal {
    /// The parameter: `mtu`.
    pub parameter: &'static str,
    /// For the operator.
    pub why: String,
}

impl Refusal {
    /// What an error chain says about a parameter, if it does.
    pub fn find<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Refusal> {
        std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
    }
}
