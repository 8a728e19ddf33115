//! The rest of a file in one conversation, where it is small.

use std::sync::atomic::Ordering;

use quarry_types::Crc32;

use super::{Comes, Engine};
use crate::{
    ClientError,
    writer::{
        permit::Permit,
        pipeline::Sums,
        whole::{self, WHOLE_BYTES_MAX, Written},
    },
};

impl Engine {
    /// Writes what is left of the file as the chunk, if it is all there and small enough. `None` when that was done, or what broke was
    /// made good; else the chunk is to be opened.
    pub(super) async fn write_if_whole(&mut self, permit: Permit) -> Result<Option<Permit>, ClientError> {
        let (from, most) = (self.window.sent(), permit.limit.min(WHOLE_BYTES_MAX));
        if self.window.unsent() > most {
            return Ok(Some(permit));
        }
        let bytes = self.window.next_packet(most);
        if self.comes() != Comes::End {
            self.take_back(from)?;
            return Ok(Some(permit));
        }
        let (to, crc) = (from + bytes.len() as u64, Crc32::of(&bytes));
        let written = whole::write(&self.shared, &permit, &bytes, crc).await;
        if matches!(written, Written::Unknown) {
            self.take_back(from)?;
            return Ok(Some(permit));
        }
        self.counters.chunks.fetch_add(1, Ordering::Relaxed);
        self.count_sent(from, to);
        match written {
            Written::Ended(ended) => {
                drop(bytes);
                self.note_sealed(&permit, ended);
            }
            Written::Broken(broken) => {
                let mut sums = Sums::default();
                sums.push(crc, to - from);
                drop(bytes);
                self.continue_after(permit, &sums, broken).await?;
            }
            Written::Unknown => {}
        }
        Ok(None)
    }

    /// What was taken from the window was not sent after all.
    fn take_back(&mut self, to: u64) -> Result<(), ClientError> {
        self.window.rewind(to).map_err(|gone| {
            let message = format!("bytes before file offset {} are no longer held", gone.start);
            ClientError::new(quarry_types::ErrorCode::Internal, self.doing(), message)
        })
    }
}
