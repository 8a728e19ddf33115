//! What came out of a run.
//!
//! | module | holds |
//! |---|---|
//! | [`outcome`] | the figures, as `--json` prints them |
//! | [`text`] | the same for people |
//! | [`html`], [`svg`] | the same as one page without anything from elsewhere, with plots |

pub mod html;
pub mod outcome;
pub mod svg;
pub mod text;

pub use outcome::Outcome;
