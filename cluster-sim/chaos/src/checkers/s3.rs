//! **S3, verified end to end.**
//!
//! *Observes* every byte that the client library gave to a caller of a read, while everything fails as well as at the end,
//! also while bits rot on disks. *From* the client that reads, which knows what it wrote under that name.
//!
//! *Cannot see* a wrong byte that a server sent and the client refused: that is as it should be, and shows only as another try.

use bytes::Bytes;

use super::s1::{self, Known};

/// What is wrong with a whole file that was read while only this client works on it. `None` in `expected`: it must be absent.
pub fn read(name: &str, expected: Option<&Known>, found: Option<&Bytes>) -> Option<String> {
    (!s1::fits(expected, found)).then(|| {
        let wanted = expected.map_or("nothing".into(), |known| s1::describe(Some(&known.data)));
        format!("S1, S3: {name} holds {}, and {wanted} was written", s1::describe(found))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_byte_is_refused() {
        let known = Known::whole(Bytes::from_static(b"abc"));
        assert_eq!(read("/f", Some(&known), Some(&Bytes::from_static(b"abc"))), None);
        assert!(read("/f", Some(&known), Some(&Bytes::from_static(b"abd"))).is_some());
        assert!(read("/f", Some(&known), None).is_some() && read("/f", None, Some(&Bytes::new())).is_some());
    }
}
