//! Why work ends early.

/// Work that did not come to its end.
#[derive(Debug, Clone, PartialEq)]
pub enum Stop {
    Cancelled,
    /// A sentence for people.
    Failed(String),
}

impl From<String> for Stop {
    fn from(message: String) -> Self {
        Self::Failed(message)
    }
}

impl From<&str> for Stop {
    fn from(message: &str) -> Self {
        Self::Failed(message.into())
    }
}
