//! Operations on chunks, one a file.

pub(crate) mod confirm;
pub(crate) mod doom;
pub(crate) mod forget;
pub(crate) mod seal;
