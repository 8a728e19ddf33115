//! Sessions: what makes a client's operation take effect at most once (S4).

pub(crate) mod client;
pub(crate) mod close;
pub(crate) mod open;
