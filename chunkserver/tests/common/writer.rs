//! A writer and a reader made of raw frames.

use quarry_client::frames::{Conn, ConnError};
use quarry_proto::{WireError, frame::Frame, signed, v1};
use quarry_types::{Crc32, Receipt, sums};

use super::soon;

pub struct Writer {
    pub conn: Conn,
    pub end: u64,
    pub acked: u64,
    pub crc: Crc32,
    pub sent_bytes: u64,
}

/// The packet that continues a chunk at `offset`.
pub fn packet(offset: u64, data: &[u8], acked: u64) -> v1::Packet {
    let mut from = data;
    let piece_crcs = sums::pieces(offset, data.len() as u64)
        .map(|length| {
            let (piece, rest) = from.split_at(length as usize);
            from = rest;
            Crc32::of(piece).0
        })
        .collect();
    v1::Packet { offset, piece_crcs, acked }
}

impl Writer {
    pub async fn open(mut conn: Conn, open: v1::OpenWrite) -> Result<Writer, ConnError> {
        conn.writer.send(open).await?;
        match soon(conn.reader.expect()).await?.0 {
            Frame::OpenWriteReply(_) => Ok(Writer { conn, end: 0, acked: 0, crc: Crc32::EMPTY, sent_bytes: 0 }),
            other => panic!("{other:?}"),
        }
    }

    /// Sends one packet and does not wait.
    pub async fn send(&mut self, data: &[u8]) -> Result<(), ConnError> {
        self.begin(data).await?;
        self.conn.writer.payload(data).await?;
        self.sent_bytes += data.len() as u64;
        self.conn.writer.flush().await
    }

    /// Sends a packet's header and meta only.
    pub async fn begin(&mut self, data: &[u8]) -> Result<(), ConnError> {
        let packet = packet(self.end, data, self.acked);
        self.conn.writer.begin(packet, data.len() as u32).await?;
        self.end += data.len() as u64;
        self.crc = self.crc.extend(data);
        self.conn.writer.flush().await
    }

    /// The next frame from the primary.
    pub async fn hear(&mut self) -> Result<Frame, ConnError> {
        let (frame, _) = soon(self.conn.reader.expect()).await?;
        if let Frame::Ack(ack) = &frame {
            assert!(ack.length > self.acked && ack.length <= self.end, "{ack:?}");
            self.acked = ack.length;
        }
        Ok(frame)
    }

    /// Waits until everything is acknowledged.
    pub async fn all_acked(&mut self) -> Result<(), ConnError> {
        while self.acked < self.end {
            let frame = self.hear().await?;
            assert!(matches!(frame, Frame::Ack(_)), "{frame:?}");
        }
        Ok(())
    }

    /// The failure that must come, after any number of acks.
    pub async fn failure(&mut self) -> WireError {
        loop {
            match self.hear().await {
                Ok(Frame::Ack(_)) => {}
                Err(ConnError::Refused { source, .. }) => return source,
                other => panic!("{other:?}"),
            }
        }
    }

    pub async fn flush(&mut self) -> Result<(), ConnError> {
        let length = self.end;
        self.conn.writer.send(v1::Flush { length }).await?;
        self.all_acked().await?;
        let frame = self.hear().await?;
        assert_eq!(frame, Frame::FlushReply(v1::FlushReply { length }));
        Ok(())
    }

    pub async fn seal(&mut self) -> Result<Vec<Receipt>, ConnError> {
        self.conn.writer.send(v1::Seal { length: self.end, crc: self.crc.0 }).await?;
        self.all_acked().await?;
        match self.hear().await? {
            Frame::SealReply(reply) => Ok(reply.receipts.iter().map(receipt).collect()),
            other => panic!("{other:?}"),
        }
    }
}

/// A signed receipt, verified.
pub fn receipt(signed: &v1::Signed) -> Receipt {
    let receipt: v1::Receipt = signed::open(&super::key(), signed).unwrap();
    receipt.try_into().unwrap()
}

pub async fn read(conn: &mut Conn, read: v1::Read) -> Result<Vec<u8>, ConnError> {
    conn.writer.send(read).await?;
    let mut data = Vec::new();
    let mut begin = None;
    loop {
        match soon(conn.reader.expect()).await? {
            (Frame::ReadData(meta), bytes) => {
                let begin = *begin.get_or_insert(meta.offset);
                assert_eq!(meta.offset - begin, data.len() as u64);
                let start = data.len();
                data.resize(start + bytes as usize, 0);
                conn.reader.payload(&mut data[start..]).await?;
                let crcs: Vec<u32> =
                    data[start..].chunks(quarry_types::limits::BLOCK_BYTES as usize).map(|b| Crc32::of(b).0).collect();
                assert_eq!(crcs, meta.block_crcs);
            }
            (Frame::ReadEnd(_), _) => return Ok(data),
            (other, _) => panic!("{other:?}"),
        }
    }
}

pub fn whole(chunk: u64, length: u64, crc: Crc32) -> v1::Read {
    v1::Read { chunk, length, crc: crc.0, offset: 0, bytes: length, request_id: "r".into(), ..Default::default() }
}
