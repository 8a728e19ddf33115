//! Operations on names and files, one a file, and what they share.

pub(crate) mod abort;
pub(crate) mod add_chunk;
pub(crate) mod append;
pub(crate) mod collect;
pub(crate) mod complete;
pub(crate) mod create;
pub(crate) mod detach;
pub(crate) mod mkdir;
pub(crate) mod remove;
pub(crate) mod rename;
pub(crate) mod replicas;
pub(crate) mod trash;
pub(crate) mod undelete;
pub(crate) mod walk;
pub(crate) mod writer;
