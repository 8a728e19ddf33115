message! {
    /// See [`super::Kind::RaiseLevel`]. The leader has made sure that every member knows the level.
    pub struct RaiseLevel as RaiseLevelWire {
        /// The new level; the one in force does nothing, a lower one is refused.
        level: u32 = (uint32, tag = "1"),
    }
}

message! {
    /// See [`super::Kind::CompareStates`].
    pub struct CompareStates as CompareStatesWire {}
}
