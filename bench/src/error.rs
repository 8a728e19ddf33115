//! Why a measurement could not be made.

use std::{fmt, io};

/// Something failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{doing}: {why}")]
pub struct Failed {
    doing: String,
    why: String,
}

/// What most functions here return.
pub type Outcome<T = ()> = Result<T, Failed>;

impl Failed {
    /// `doing` says at what, `why` what happened and what to do.
    pub fn new(doing: impl Into<String>, why: impl fmt::Display) -> Self {
        Failed { doing: doing.into(), why: why.to_string() }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Failed::new("reading or writing", error)
    }
}

/// Says at what something failed.
pub trait During<T> {
    /// `doing` says at what.
    ///
    /// # Errors
    /// [`Failed`] for each error.
    fn during(self, doing: impl Into<String>) -> Outcome<T>;
}

impl<T, E: fmt::Display> During<T> for Result<T, E> {
    fn during(self, doing: impl Into<String>) -> Outcome<T> {
        self.map_err(|why| Failed::new(doing, why))
    }
}
