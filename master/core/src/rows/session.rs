use quarry_types::SessionId;

message! {
    /// A client's numbered conversation, by session id.
    pub struct Session as SessionWire {
        /// What opened it.
        nonce: Vec<u8> = (bytes = "vec", tag = "1"),
        /// The client never retries a sequence below this.
        acknowledged_below: u64 = (uint64, tag = "2"),
        /// Results kept.
        results: u32 = (uint32, tag = "3"),
    }
}
record!(Session as SessionWire);

message! {
    /// What opened a session → the session.
    pub struct Nonce as NonceWire {
        /// The session.
        session: SessionId = (uint64, tag = "1"),
    }
}
record!(Nonce as NonceWire);

message! {
    /// What an operation answered, by (session, sequence).
    pub struct OpResult as OpResultWire {
        /// Which operation it was: a repetition must be the same.
        operation: u32 = (uint32, tag = "1"),
        /// See [`crate::reply::encode_outcome`].
        outcome: Vec<u8> = (bytes = "vec", tag = "2"),
    }
}
record!(OpResult as OpResultWire);
