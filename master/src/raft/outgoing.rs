//! Sending a snapshot to a member that lags too far behind for the log.

use std::{path::PathBuf, sync::Arc, time::Duration};

use quarry_env::{DiskFile, OpenMode, World, clock::timeout};
use quarry_proto::{WireError, v1};
use quarry_types::ErrorCode;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{network::Client, parties::Parties, types::Vote, wire};
use crate::store::Snapshot;

/// Bytes in one piece.
const PIECE_BYTES: u64 = 512 << 10;
/// Pieces read ahead of the network.
const PIECES_AHEAD: usize = 4;
/// Every step of a transfer is made within this.
pub(super) const STEP_DEADLINE: Duration = Duration::from_secs(10);
/// Installing what arrived takes its time: files are made durable, and the state is opened.
const INSTALL_DEADLINE: Duration = Duration::from_secs(600);

/// One snapshot on its way to one member.
pub(super) struct Outgoing<'a> {
    pub world: World,
    pub parties: Parties,
    pub target: u64,
    pub vote: Vote,
    pub snapshot: &'a Snapshot,
}

/// A position in a snapshot: the place of a file, and an offset in it.
type At = (usize, u64);

impl Outgoing<'_> {
    /// Sends what the other side does not have yet, and goes on after a break as long as it came forward. The vote of the
    /// other side when it is installed, or when it is higher than ours.
    pub async fn send(&self, mut client: Client) -> Result<Vote, WireError> {
        let offer = self.offer().await?;
        let mut reached: Option<At> = None;
        loop {
            let at = match self.wanted(&mut client, &offer).await? {
                Ok(at) => at,
                Err(higher) => return Ok(higher),
            };
            match self.pieces(&mut client, &offer, at).await {
                Ok(vote) => return Ok(vote),
                Err(error) if reached.is_some_and(|before| before >= at) => return Err(error),
                Err(error) => {
                    tracing::info!(master = self.target, file = at.0, offset = at.1, error = %error.message, "sending a snapshot goes on");
                    reached = Some(at);
                }
            }
        }
    }

    /// What there is to send.
    async fn offer(&self) -> Result<v1::SnapshotOffer, WireError> {
        let (world, snapshot) = (self.world.clone(), self.snapshot.clone());
        let listed = self.world.blocking.run(move || snapshot.files(&world));
        let files = listed.await.map_err(|lost| failed(&lost))?.map_err(|error| failed(&error))?;
        let name = self.snapshot.path().file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let meta = self.snapshot.mark().map(crate::store::Mark::to_bytes).unwrap_or_default().into();
        Ok(v1::SnapshotOffer { parties: None, vote: Some(wire::vote(&self.vote)), name, meta, files })
    }

    /// Where to go on; or a higher vote of the other side.
    async fn wanted(&self, client: &mut Client, offer: &v1::SnapshotOffer) -> Result<Result<At, Vote>, WireError> {
        let asked = self.parties.request(&self.world, self.target);
        let offer = v1::SnapshotOffer { parties: Some(asked.clone()), ..offer.clone() };
        let offering = client.offer_snapshot(self.parties.sign(&offer));
        let answer = timeout(&*self.world.clock, STEP_DEADLINE, offering).await.map_err(|late| failed(&late))??;
        let wanted: v1::SnapshotWanted = self.parties.open_answer(answer.get_ref(), &asked)?;
        if wanted.vote.is_some() {
            return Ok(Err(wire::vote_from(wanted.vote)?));
        }
        Ok(Ok((usize::try_from(wanted.file).unwrap_or(usize::MAX), wanted.offset)))
    }

    async fn pieces(&self, client: &mut Client, offer: &v1::SnapshotOffer, from: At) -> Result<Vote, WireError> {
        let (pieces, outgoing) = mpsc::channel(PIECES_AHEAD);
        let asked = self.parties.request(&self.world, self.target);
        let reading = self.read(offer, from, asked.clone(), pieces);
        let sending = async {
            let sent = client.send_snapshot(ReceiverStream::new(outgoing));
            timeout(&*self.world.clock, INSTALL_DEADLINE, sent)
                .await
                .map_err(|late| failed(&late))?
                .map_err(WireError::from)
        };
        let (read, sent) = tokio::join!(reading, sending);
        // Where the other side gave a reason it is the better one: the reader only finds nobody to read for.
        let answer = match (sent, read) {
            (Err(error), _) | (Ok(_), Err(error)) => return Err(error),
            (Ok(answer), Ok(())) => answer,
        };
        let reply: v1::SnapshotReply = self.parties.open_answer(answer.get_ref(), &asked)?;
        wire::vote_from(reply.vote)
    }

    /// Reads pieces as fast as they are taken.
    async fn read(
        &self,
        offer: &v1::SnapshotOffer,
        (first, mut offset): At,
        parties: v1::RaftParties,
        pieces: mpsc::Sender<v1::Signed>,
    ) -> Result<(), WireError> {
        for (place, listed) in offer.files.iter().enumerate().skip(first) {
            let file = self.open(self.snapshot.path().join(&listed.name)).await?;
            // An empty file is one empty piece.
            loop {
                let length = PIECE_BYTES.min(listed.length.saturating_sub(offset));
                let bytes = self.read_piece(&file, offset, length).await?;
                let piece = v1::SnapshotPiece {
                    parties: Some(parties.clone()),
                    vote: offer.vote,
                    name: offer.name.clone(),
                    file: u32::try_from(place).unwrap_or(u32::MAX),
                    offset,
                    bytes: bytes.into(),
                };
                let taken = timeout(&*self.world.clock, STEP_DEADLINE, pieces.send(self.parties.sign(&piece))).await;
                taken.map_err(|late| failed(&late))?.map_err(|gone| failed(&gone))?;
                offset += length;
                if offset >= listed.length {
                    break;
                }
            }
            offset = 0;
        }
        Ok(())
    }

    async fn open(&self, path: PathBuf) -> Result<Arc<dyn DiskFile>, WireError> {
        let world = self.world.clone();
        let opened = self.world.blocking.run(move || world.disk.open(&path, OpenMode::Read));
        Ok(opened.await.map_err(|lost| failed(&lost))?.map_err(|error| failed(&error))?.into())
    }

    async fn read_piece(&self, file: &Arc<dyn DiskFile>, offset: u64, length: u64) -> Result<Vec<u8>, WireError> {
        let file = Arc::clone(file);
        let read = self.world.blocking.run(move || {
            let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
            file.read_exact_at(&mut bytes, offset).map(|()| bytes)
        });
        read.await.map_err(|lost| failed(&lost))?.map_err(|error| failed(&error))
    }
}

fn failed(why: &dyn std::fmt::Display) -> WireError {
    WireError::new(ErrorCode::Unavailable, format!("sending a snapshot: {why}"))
}
