//! Reading from one source over its data port.

use std::{ops::Range, time::Duration};

use quarry_client::frames::{self, Conn, ConnError};
use quarry_env::clock::timeout;
use quarry_proto::{WireError, frame::Frame, v1};
use quarry_types::{Crc32, ErrorCode, ServerId, limits::CONNECT_DEADLINE};

use super::Order;
use crate::{
    server::Context,
    store::{CopyWriter, StoreError},
};

/// The next frame, a packet at most, must have arrived within this.
const FRAME_DEADLINE: Duration = Duration::from_secs(10);

/// Why reading from a source ended early.
pub(super) enum Trouble {
    /// This server's own: no other source can help.
    Here(WireError),
    /// It cannot be reached.
    Unreachable(WireError),
    /// It failed otherwise.
    Source(WireError),
}

/// A connection to a source.
pub(super) struct Source<'a> {
    context: &'a Context,
    order: &'a Order,
    server: ServerId,
    conn: Conn,
    salvage: bool,
}

impl<'a> Source<'a> {
    pub(super) async fn connect(
        context: &'a Context,
        order: &'a Order,
        (server, address): &(ServerId, String),
        salvage: bool,
    ) -> Result<Self, Trouble> {
        let cluster = context.store.identity().cluster.unwrap_or_default();
        let conn = frames::connect(&context.world, address, cluster, *server, CONNECT_DEADLINE).await;
        let conn = conn.map_err(|e| Trouble::Unreachable(WireError::from(e).of_server(*server)))?;
        Ok(Source { context, order, server: *server, conn, salvage })
    }

    /// Reads a range of whole blocks into `writer`; how many blocks were bad. What a salvage cannot read it leaves out.
    pub(super) async fn read(&mut self, range: Range<u64>, writer: &CopyWriter) -> Result<u64, Trouble> {
        let bytes = range.end - range.start;
        let read = v1::Read {
            chunk: self.order.chunk.0,
            length: self.order.length,
            crc: self.order.crc.0,
            offset: range.start,
            bytes,
            request_id: format!("copy-{}", self.order.chunk),
            copy: true,
            salvage: self.salvage,
            open: false,
            beside: false,
        };
        let asked = timeout(&*self.context.world.clock, FRAME_DEADLINE, self.conn.writer.send(read)).await;
        self.in_time(asked)?;
        let (mut left, mut bad) = (bytes, 0);
        loop {
            let heard = timeout(&*self.context.world.clock, FRAME_DEADLINE, hear(&mut self.conn)).await;
            let Some((meta, data)) = self.in_time(heard)? else { return Ok(bad) };
            left =
                left.checked_sub(data.len() as u64).ok_or_else(|| self.trouble("it sends more than was asked for"))?;
            let crcs = meta.block_crcs.into_iter().map(Crc32).collect();
            bad += writer.take(meta.offset, crcs, data.into()).await.map_err(|e| self.of_store(e))?;
        }
    }

    fn in_time<T>(&self, answer: Result<Result<T, ConnError>, quarry_env::clock::Elapsed>) -> Result<T, Trouble> {
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Trouble::Source(WireError::from(error).of_server(self.server))),
            Err(late) => Err(self.trouble(&late.to_string())),
        }
    }

    fn trouble(&self, what: &str) -> Trouble {
        let message = format!("chunkserver {}, copying chunk {} from it: {what}", self.server, self.order.chunk);
        Trouble::Source(WireError::new(ErrorCode::Unavailable, message).of_server(self.server))
    }

    /// What it sent was no blocks of the chunk, or they could not be kept here.
    fn of_store(&self, error: StoreError) -> Trouble {
        match error.code() {
            ErrorCode::InvalidArgument => self.trouble(&error.to_string()),
            _ => Trouble::Here(error.into()),
        }
    }
}

/// The next blocks; `None` at the end of the range.
async fn hear(conn: &mut Conn) -> Result<Option<(v1::ReadData, Vec<u8>)>, ConnError> {
    match conn.reader.expect().await? {
        (Frame::ReadData(meta), bytes) => {
            // A frame's payload is bounded.
            let mut data = vec![0; bytes as usize];
            conn.reader.payload(&mut data).await?;
            Ok(Some((meta, data)))
        }
        (Frame::ReadEnd(_), _) => Ok(None),
        (other, _) => Err(conn.reader.unexpected(&other, "ReadData or ReadEnd")),
    }
}
