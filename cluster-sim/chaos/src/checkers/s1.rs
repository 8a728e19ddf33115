//! **S1, acknowledged is durable.**
//!
//! *Observes* what the client library told its callers: a completion, a flush, a creation that returned. *From* the clients'
//! own memory, compared with what they read from the healed cluster at the end of a run. A name whose last call ended without
//! an answer may be in any of the states that the call allows ([`Unsure`]).
//!
//! *Cannot see* a byte that was acknowledged and lost and written again by a retry before anyone looked, nor which replica
//! would have been the last one: that is what many seeds are for. With `buffered` durability it asks for the same, since the
//! fault budget spares those runs the faults that `buffered` does not survive (`shape.rs`).

use bytes::Bytes;

/// Contents that a file may have: `data` up to `at_least`, or further.
#[derive(Clone, Debug)]
pub struct Known {
    pub data: Bytes,
    pub at_least: usize,
}

/// Names and what may be there: one of `worlds`, with `None` for a name that is absent.
#[derive(Debug)]
pub struct Unsure {
    pub names: Vec<String>,
    pub worlds: Vec<Vec<Option<Known>>>,
}

impl Known {
    /// All of it is promised.
    pub fn whole(data: Bytes) -> Self {
        Known { at_least: data.len(), data }
    }

    fn fits(&self, found: &[u8]) -> bool {
        found.len() >= self.at_least && self.data.starts_with(found)
    }
}

/// Whether what was found is what may be there.
pub fn fits(expected: Option<&Known>, found: Option<&Bytes>) -> bool {
    match (expected, found) {
        (None, None) => true,
        (Some(expected), Some(found)) => expected.fits(found),
        _ => false,
    }
}

impl Unsure {
    /// What is wrong with what was found under its names, in their order.
    pub fn breaks(&self, found: &[Option<Bytes>]) -> Option<String> {
        let fitting = |world: &&Vec<Option<Known>>| world.iter().zip(found).all(|(e, f)| fits(e.as_ref(), f.as_ref()));
        if self.worlds.iter().any(|world| fitting(&world)) {
            return None;
        }
        let found: Vec<_> = found.iter().map(|f| describe(f.as_ref())).collect();
        let worlds: Vec<Vec<_>> = self.worlds.iter().map(|w| w.iter().map(expectation).collect()).collect();
        Some(format!("S1: {:?} hold {found:?}, expected one of {worlds:?}", self.names))
    }

    /// Whether all that it may be was acknowledged to the last byte.
    pub fn is_promised(&self) -> bool {
        matches!(&self.worlds[..], [only] if only.iter().flatten().all(|known| known.at_least == known.data.len()))
    }
}

/// For messages.
pub fn describe(found: Option<&Bytes>) -> String {
    found.map_or("nothing".into(), |bytes| format!("{} bytes, crc {:08x}", bytes.len(), crc32fast::hash(bytes)))
}

fn expectation(known: &Option<Known>) -> String {
    match known {
        None => "nothing".into(),
        Some(known) => {
            let (least, most) = (known.at_least, known.data.len());
            format!("{least} to {most} bytes, crc {:08x} of all", crc32fast::hash(&known.data))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_short_of_what_was_flushed_is_refused() {
        let known = Known { data: Bytes::from_static(b"abcdef"), at_least: 3 };
        let of = |found: &'static [u8]| fits(Some(&known), Some(&Bytes::from_static(found)));
        assert!(of(b"abc") && of(b"abcdef"));
        assert!(!of(b"ab") && !of(b"abd") && !of(b"abcdefg"));
        let unsure = Unsure { names: vec!["/f".into()], worlds: vec![vec![Some(known)]] };
        assert!(unsure.breaks(&[None]).is_some_and(|why| why.starts_with("S1")));
        assert!(unsure.breaks(&[Some(Bytes::from_static(b"abcd"))]).is_none());
    }
}
