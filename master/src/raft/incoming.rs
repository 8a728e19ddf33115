//! Receiving a snapshot: beside the state, piece by piece, and it goes on after a break.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _};
use quarry_env::{DiskFile, OpenMode, World, clock::timeout};
use quarry_proto::{WireError, v1};
use quarry_types::{ErrorCode, limits::CHUNK_BYTES};
use tokio::sync::Mutex;
use tonic::Status;

use super::parties::Parties;
use crate::{
    store::{Layout, Mark, Snapshot},
    sync_points,
};

/// A sender that sends nothing for so long is gone.
const PIECE_DEADLINE: Duration = Duration::from_secs(15);
/// Files of one snapshot.
const FILES_MAX: usize = 1 << 20;
/// Longest name of a file.
const NAME_MAX: usize = 100;
/// Room that is left on the disk beside a snapshot, in bytes: the log goes on growing.
const RESERVE: u64 = 4 * CHUNK_BYTES;

/// What arrives at one member: one snapshot at a time.
pub(super) struct Incoming {
    world: World,
    layout: Layout,
    transfer: Arc<Mutex<Option<Transfer>>>,
}

/// A snapshot that is partly here.
struct Transfer {
    from: u64,
    name: String,
    meta: Vec<u8>,
    files: Vec<v1::SnapshotFile>,
    dir: PathBuf,
    /// The file that is being written, and how much of it is.
    at: (usize, u64),
    open: Option<Box<dyn DiskFile>>,
}

impl Incoming {
    pub fn new(world: &World, layout: &Layout) -> Self {
        Incoming { world: world.clone(), layout: layout.clone(), transfer: Arc::default() }
    }

    /// Where the transfer of an offered snapshot begins or goes on.
    pub async fn offered(&self, from: u64, offer: v1::SnapshotOffer) -> Result<(usize, u64), WireError> {
        check(&offer)?;
        let mut transfer = self.transfer.try_lock().map_err(|_| busy())?;
        if let Some(known) = transfer.as_ref()
            && (known.from, &known.name, &known.files) == (from, &offer.name, &offer.files)
        {
            return Ok(known.at);
        }
        let before = transfer.take();
        let (world, layout) = (self.world.clone(), self.layout.clone());
        let begun = self.world.blocking.run(move || {
            if let Some(before) = before {
                layout.remove(&before.dir).map_err(io::Error::other)?;
            }
            let dir = layout.incoming(&layout.new_name(0));
            let room = world.disk.space(layout.dir())?.available;
            let needed = offer.files.iter().fold(RESERVE, |sum, file| sum.saturating_add(file.length));
            if room < needed {
                let why = format!("{room} bytes are free, and a snapshot needs {needed}; free some room");
                return Err(io::Error::new(io::ErrorKind::StorageFull, why));
            }
            world.disk.create_dir_all(&dir.join("kv"))?;
            let (name, meta, files) = (offer.name, offer.meta.to_vec(), offer.files);
            Ok(Transfer { from, name, meta, files, dir, at: (0, 0), open: None })
        });
        let begun = begun.await.map_err(|lost| failed(&lost))?.map_err(|error| io_failed(&error))?;
        tracing::info!(master = from, name = begun.name, files = begun.files.len(), "a snapshot arrives");
        *transfer = Some(begun);
        Ok((0, 0))
    }

    /// Takes pieces until the snapshot is complete and durable. `None`: the sender ended before.
    pub async fn received(
        &self,
        parties: &Parties,
        mut pieces: impl Stream<Item = Result<v1::Signed, Status>> + Unpin,
    ) -> Result<Received, WireError> {
        let mut transfer = self.transfer.clone().try_lock_owned().map_err(|_| busy())?;
        loop {
            let next = timeout(&*self.world.clock, PIECE_DEADLINE, pieces.next()).await;
            let signed = match next {
                Ok(Some(signed)) => signed?,
                Ok(None) => return Err(failed(&"its sender ended it before the last piece")),
                Err(late) => return Err(failed(&late)),
            };
            let (piece, asked) = parties.open::<v1::SnapshotPiece>(&signed)?;
            let vote = piece.vote;
            let known = transfer.as_ref().is_some_and(|known| (known.from, &known.name) == (asked.from, &piece.name));
            if !known {
                return Err(failed(&"it was not offered, or another one was since"));
            }
            let (world, layout) = (self.world.clone(), self.layout.clone());
            let work = self.world.blocking.run(move || {
                let done = transfer.as_mut().map_or(Ok(None), |transfer| transfer.write(&world, piece));
                if matches!(done, Err(_) | Ok(Some(_))) {
                    // What failed half-way is not gone on with.
                    let over = transfer.take();
                    if let (Err(_), Some(over)) = (&done, over) {
                        layout.remove(&over.dir).map_err(io::Error::other)?;
                    }
                }
                Ok((transfer, done?))
            });
            let (back, done): (_, Option<Snapshot>) =
                work.await.map_err(|lost| failed(&lost))?.map_err(|error: io::Error| io_failed(&error))?;
            transfer = back;
            if let Some(snapshot) = done {
                return Ok(Received { snapshot, vote, asked });
            }
        }
    }

    /// Removes what was received, once it is installed.
    pub async fn installed(&self, snapshot: Snapshot) -> Result<(), WireError> {
        let layout = self.layout.clone();
        let removed = self.world.blocking.run(move || layout.remove(snapshot.path()));
        removed.await.map_err(|lost| failed(&lost))?.map_err(|error| failed(&error))
    }
}

/// A snapshot that is here as a whole.
pub(super) struct Received {
    pub snapshot: Snapshot,
    /// The sender's.
    pub vote: Option<v1::RaftVote>,
    /// What the answer is to.
    pub asked: v1::RaftParties,
}

impl Transfer {
    /// Writes one piece; the snapshot when it was the last one.
    fn write(&mut self, world: &World, piece: v1::SnapshotPiece) -> io::Result<Option<Snapshot>> {
        let (place, offset) = self.at;
        let listed = self.files.get(place).ok_or_else(|| wrong("a piece behind the end"))?;
        let bytes = piece.bytes.len() as u64;
        if (usize::try_from(piece.file), piece.offset) != (Ok(place), offset) || offset + bytes > listed.length {
            return Err(wrong("a piece out of order"));
        }
        let path = self.dir.join(&listed.name);
        let file = match self.open.take() {
            Some(file) => file,
            None => world.disk.open(&path, OpenMode::CreateNew)?,
        };
        file.write_all_at(&piece.bytes, offset)?;
        if offset + bytes < listed.length {
            self.open = Some(file);
            self.at = (place, offset + bytes);
            return Ok(None);
        }
        file.sync_data(sync_points::SNAPSHOT_RECEIVED)?;
        self.at = (place + 1, 0);
        if self.at.0 < self.files.len() {
            return Ok(None);
        }
        world.disk.sync_dir(&self.dir.join("kv"), sync_points::SNAPSHOT_RECEIVED)?;
        let snapshot = Snapshot::load(world, &self.dir).map_err(io::Error::other)?;
        let snapshot = snapshot.ok_or_else(|| wrong("no META"))?;
        if snapshot.mark().map(Mark::to_bytes).unwrap_or_default() != self.meta {
            return Err(wrong("another META than was offered"));
        }
        snapshot.verify(world).map_err(|error| {
            // A second copy of the same files would be no better.
            wrong(&format!(
                "it arrived as it was sent, and cannot be read: {error}; look at the disk of master m{}",
                self.from
            ))
        })?;
        Ok(Some(snapshot))
    }
}

/// Names that a sender could place files elsewhere with are refused, and what is over the limits.
fn check(offer: &v1::SnapshotOffer) -> Result<(), WireError> {
    let plain = |name: &str| {
        let word = name.strip_prefix("kv/").unwrap_or_default();
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        !word.is_empty() && word.len() <= NAME_MAX && !word.starts_with('.') && word.bytes().all(good)
    };
    let (last, others) = offer.files.split_last().ok_or_else(|| failed(&"it has no files"))?;
    if last.name != "META" || offer.files.len() > FILES_MAX || offer.name.len() > NAME_MAX {
        return Err(WireError::new(ErrorCode::InvalidArgument, "an offered snapshot does not end with its META"));
    }
    match others.iter().find(|file| !plain(&file.name)) {
        Some(bad) => {
            let why = format!("an offered snapshot has a file {:?}, which is no name of one", bad.name);
            Err(WireError::new(ErrorCode::InvalidArgument, why))
        }
        None => Ok(()),
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a snapshot that was sent: {what}"))
}

fn busy() -> WireError {
    WireError::new(ErrorCode::Busy, "another snapshot is arriving at this master; try again")
}

fn failed(why: &dyn std::fmt::Display) -> WireError {
    WireError::new(ErrorCode::Unavailable, format!("receiving a snapshot: {why}"))
}

fn io_failed(error: &io::Error) -> WireError {
    let code = if error.kind() == io::ErrorKind::StorageFull { ErrorCode::NoSpace } else { ErrorCode::Unavailable };
    WireError::new(code, format!("receiving a snapshot: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s8_an_offer_cannot_name_files_elsewhere() {
        let offer = |names: &[&str]| {
            let files = names.iter().map(|name| v1::SnapshotFile { name: (*name).into(), length: 1 }).collect();
            check(&v1::SnapshotOffer { files, ..Default::default() })
        };
        assert!(offer(&["kv/000012.sst", "kv/MANIFEST-000005", "META"]).is_ok());
        for bad in [
            &[][..],
            &["kv/1"],
            &["META", "kv/1"],
            &["kv/../x", "META"],
            &["/etc/x", "META"],
            &["kv/", "META"],
            &["kv/..", "META"],
            &["kv/a/b", "META"],
            &["x", "META"],
            &["META", "META"],
        ] {
            assert!(offer(bad).is_err(), "{bad:?}");
        }
    }
}
