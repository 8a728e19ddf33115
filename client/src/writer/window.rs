//! What a writer accepted and the chunkservers have not acknowledged yet. Pure.
//!
//! ```text
//!          start            sent               end          (file offsets)
//! ───────────┼────────────────┼─────────────────┼────▶
//!  released  │ sent, unacked  │ not sent yet    │ not written yet
//! ```

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use quarry_types::{Crc32, limits::PACKET_BYTES};

/// What was asked for lies below what is retained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone {
    /// The first byte that is retained.
    pub(super) start: u64,
}

/// The bytes between what is acknowledged and what was accepted.
#[derive(Debug)]
pub(super) struct Window {
    segments: VecDeque<Bytes>,
    start: u64,
    sent: u64,
    end: u64,
}

impl Window {
    /// Empty, at file offset `at`.
    pub(super) fn new(at: u64) -> Self {
        Window { segments: VecDeque::new(), start: at, sent: at, end: at }
    }

    /// Accepts the next bytes.
    pub(super) fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.end += bytes.len() as u64;
            self.segments.push_back(bytes);
        }
    }

    /// Bytes held.
    pub(super) fn retained(&self) -> u64 {
        self.end - self.start
    }

    /// The first byte held.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// The next byte to send.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Behind the last byte accepted.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes to be sent.
    pub(super) fn unsent(&self) -> u64 {
        self.end - self.sent
    }

    /// The next bytes to send, at most `room` and at most a packet, from one segment so that nothing is copied. They
    /// count as sent. Empty when there is nothing to send.
    pub(super) fn next_packet(&mut self, room: u64) -> Bytes {
        let mut at = self.start;
        for segment in &self.segments {
            let end = at + segment.len() as u64;
            if self.sent < end {
                let from = self.sent - at;
                let length = (end - self.sent).min(room).min(PACKET_BYTES);
                self.sent += length;
                // Both lie within a segment in memory.
                return segment.slice(from as usize..(from + length) as usize);
            }
            at = end;
        }
        Bytes::new()
    }

    /// Everything below `to` is acknowledged. Returns the segments that are no longer held.
    pub(super) fn release(&mut self, to: u64) -> Vec<Bytes> {
        let mut freed = Vec::new();
        let to = to.min(self.end);
        while self.start < to {
            let Some(first) = self.segments.front_mut() else { break };
            let drop = (to - self.start).min(first.len() as u64);
            self.start += drop;
            if drop == first.len() as u64 {
                freed.extend(self.segments.pop_front());
            } else {
                first.advance(drop as usize);
            }
        }
        self.sent = self.sent.max(self.start);
        freed
    }

    /// Sending goes on from `to`.
    ///
    /// # Errors
    /// [`Gone`] when bytes from there on are no longer held; nothing has changed then.
    pub(super) fn rewind(&mut self, to: u64) -> Result<(), Gone> {
        if to < self.start || to > self.end {
            return Err(Gone { start: self.start });
        }
        self.sent = to;
        Ok(())
    }

    /// Extends `crc`, which covers everything up to `from`, by the bytes up to `to`; `None` when they are not all held.
    pub(super) fn extend_crc(&self, crc: Crc32, from: u64, to: u64) -> Option<Crc32> {
        if from < self.start || to > self.end || from > to {
            return None;
        }
        let (mut crc, mut at) = (crc, self.start);
        for segment in &self.segments {
            let end = at + segment.len() as u64;
            let (low, high) = (from.clamp(at, end), to.clamp(at, end));
            crc = crc.extend(&segment[(low - at) as usize..(high - at) as usize]);
            at = end;
        }
        Some(crc)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn data(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i * 7 % 251) as u8).collect()
    }

    #[test]
    fn packets_come_from_one_segment_and_fit_the_room() {
        let mut window = Window::new(10);
        window.push(Bytes::from_static(b"abcdef"));
        window.push(Bytes::from_static(b"gh"));
        assert_eq!(&window.next_packet(4)[..], b"abcd");
        assert_eq!(&window.next_packet(4)[..], b"ef");
        assert_eq!(&window.next_packet(4)[..], b"gh");
        assert!(window.next_packet(4).is_empty());
        assert_eq!((window.start(), window.sent(), window.end()), (10, 18, 18));
    }

    #[test]
    fn only_what_lies_beyond_the_seal_is_sent_again() {
        let mut window = Window::new(0);
        window.push(Bytes::from_static(b"abcdef"));
        while !window.next_packet(2).is_empty() {}
        window.release(2);
        // Sealed at 3, of which 2 were acknowledged.
        window.release(3);
        window.rewind(3).unwrap();
        assert_eq!(&window.next_packet(100)[..], b"def");
        assert_eq!(window.rewind(2), Err(Gone { start: 3 }));
    }

    #[test]
    fn the_crc_of_a_sealed_prefix_is_known() {
        let mut window = Window::new(100);
        window.push(Bytes::from_static(b"abc"));
        window.push(Bytes::from_static(b"def"));
        assert_eq!(window.extend_crc(Crc32::of(b"ab"), 102, 105), Some(Crc32::of(b"abcde")));
        assert_eq!(window.extend_crc(Crc32::EMPTY, 99, 105), None);
        assert_eq!(window.extend_crc(Crc32::EMPTY, 100, 107), None);
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_or_sent_twice_without_cause(
            pushes in proptest::collection::vec(0usize..50, 1..20),
            moves in proptest::collection::vec((1u64..60, 0u64..60, any::<bool>()), 1..60),
        ) {
            let all = data(pushes.iter().sum());
            let mut window = Window::new(0);
            let mut from = 0;
            for push in pushes {
                window.push(Bytes::copy_from_slice(&all[from..from + push]));
                from += push;
            }
            for (room, ack, fail) in moves {
                let at = window.sent();
                let packet = window.next_packet(room);
                prop_assert_eq!(&packet[..], &all[at as usize..at as usize + packet.len()]);
                let acked = window.start() + ack.min(window.sent() - window.start());
                window.release(acked);
                prop_assert_eq!(window.start(), acked);
                if fail {
                    window.rewind(acked).unwrap();
                    prop_assert_eq!(window.sent(), acked);
                }
                prop_assert_eq!(window.retained(), all.len() as u64 - acked);
            }
        }
    }
}
