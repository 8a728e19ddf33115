//! Operations on names: each is one command.

use std::time::Duration;

use quarry_master_core::{
    command::{Abort, ClientCommand, Kind, Mutation, OpId},
    query,
    reply::{FileView, Reply, Writer},
};
use quarry_types::{ErrorCode, LeaseId};

use super::{Sealer, Service, check};
use crate::{
    error::{Fault, fault},
    reading::{Age, Reading},
    shared::{Leading, unexpected},
};

impl Service {
    /// Proposes a client's operation after all checks that need no state.
    pub(super) async fn mutate(&self, op: OpId, mutation: Mutation) -> Result<Reply, Fault> {
        check::op(&op)?;
        check::mutation(&mutation)?;
        let leading = self.shared.leading()?;
        leading.soft().renewals.session(op.session, self.shared.now());
        self.shared.propose(Kind::Client(ClientCommand { op, mutation })).await
    }

    /// A call under a lease renews it, unless it is being ended.
    pub(super) fn renew(&self, leading: &Leading, lease: LeaseId) -> Result<(), Fault> {
        if leading.soft().renewals.lease(lease, self.shared.now()) {
            return Ok(());
        }
        let why = format!("writer lease {lease} was not renewed in time and has ended; open the file again");
        Err(fault(ErrorCode::LeaseLost, why))
    }

    /// Creates a file or opens one for appending: both give a writer lease.
    pub async fn open_writer(&self, op: OpId, mutation: Mutation) -> Result<Writer, Fault> {
        match self.mutate(op, mutation).await? {
            Reply::Writer(writer) => {
                // A repeated call may find its lease ended long ago; the next one under it will say so.
                let _ended = self.renew(&*self.shared.leading()?, writer.lease);
                Ok(writer)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Makes a directory, renames or removes: what the name stands for afterwards, if anything.
    pub async fn change_name(&self, op: OpId, mutation: Mutation) -> Result<Option<FileView>, Fault> {
        match self.mutate(op, mutation).await? {
            Reply::File(file) => Ok(Some(file)),
            Reply::Done(_) => Ok(None),
            other => Err(unexpected(&other)),
        }
    }

    /// Gives a write up. Of a visible file everything that its members have is kept: its open chunks are sealed first.
    pub async fn abort(&self, op: OpId, abort: Abort, deadline: Duration) -> Result<(), Fault> {
        check::op(&op)?;
        let leading = self.shared.leading()?;
        let lease = abort.lease;
        let found = self.shared.glance(move |tables| Ok(query::lease(tables, lease)?)).await?;
        if let Some(found) = found.filter(|l| l.visible && l.session == op.session && l.inode == abort.inode) {
            let sealer = Sealer::new(self.shared.clone(), leading);
            for chunk in found.open {
                if let Err(error) = sealer.seal(chunk, deadline).await {
                    // The chunk stays open without a lease, and the driver seals it as soon as a member answers.
                    tracing::warn!(%chunk, %error, "an aborted file's chunk could not be sealed yet");
                }
            }
        }
        self.mutate(op, Mutation::Abort(abort)).await.map(|_| ())
    }

    /// What is known of a path.
    pub async fn stat(&self, path: String, reading: &Reading) -> Result<(FileView, Option<Age>), Fault> {
        check::path(&path)?;
        self.shared.read_as(reading, move |tables| query::stat(tables, &path)).await
    }
}
