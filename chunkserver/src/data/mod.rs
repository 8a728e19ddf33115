//! The data port: bulk bytes in and out.
//!
//! | module | does |
//! |---|---|
//! | [`listen`] | takes connections, shakes hands, starts conversations |
//! | [`grant`] | decides whether a write may begin |
//! | [`write`] | one write from `OpenWrite` to `SealReply`: receives, replies |
//! | [`whole`] | a small chunk in one conversation |
//! | [`local`] | carries out a write's steps on this server's disk, in order |
//! | [`forward`] | the next member of the pipeline |
//! | [`progress`] | how far a write has come here and behind, and so what may be acknowledged; pure |
//! | [`read`] | reads |
//! | [`give_out`] | gives the files of sealed replicas to clients on this machine, which read them by themselves |
//! | [`streams`] | the writes under way, so that a fence cuts them off |
//! | [`buffers`] | packet buffers, bounded and used again |

pub(crate) mod buffers;
mod forward;
pub(crate) mod give_out;
mod grant;
pub(crate) mod limits;
pub(crate) mod listen;
mod local;
mod progress;
mod read;
pub(crate) mod streams;
mod whole;
mod write;
