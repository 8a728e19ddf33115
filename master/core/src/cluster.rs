//! Operations on the cluster as a whole, one a file.

pub(crate) mod create;
pub(crate) mod epoch;
pub(crate) mod level;
pub(crate) mod lineage;
pub(crate) mod marks;
pub(crate) mod master;
pub(crate) mod server;
pub(crate) mod settings;
pub(crate) mod tick;
pub(crate) mod verdict;
