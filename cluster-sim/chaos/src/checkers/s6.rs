//! **S6, deletion is last.**
//!
//! *Observes* every replica that a chunkserver takes out of its index. *From* the index, just before the change, compared with
//! what the masters have committed: a replica of a chunk that is neither sealed (then S7 judges), doomed nor forgotten stays.
//! That dooming is irreversible is judged where rows change (`s2.rs`). At the end nothing that was deleted may be left
//! (`settled.rs`).
//!
//! *Cannot see* whether an operator would have wanted the file back: trash and grace are settings, short ones here.

use crate::books::Life;

/// What is wrong with removing a replica of a chunk in this life; `None` in `life`: no such chunk was ever committed.
pub fn removal(life: Option<Life>) -> Option<String> {
    match life {
        Some(Life::Sealed(_) | Life::Doomed | Life::Forgotten) => None,
        other => Some(format!("S6: a replica is removed of a chunk that is {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_removed_before_it_is_doomed() {
        assert!(removal(Some(Life::Open)).is_some() && removal(None).is_some());
        assert_eq!(removal(Some(Life::Doomed)), None);
    }
}
