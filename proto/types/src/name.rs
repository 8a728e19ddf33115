//! Names and paths that the namespace accepts.

use crate::limits::{NAME_BYTES, PATH_BYTES, PATH_DEPTH};

/// Why a name or path is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Paths start at the root.
    #[error("path {0:?} does not start with '/'; write it from the root")]
    NotAbsolute(String),
    /// An empty name.
    #[error("a name is empty")]
    Empty,
    /// `.` and `..` are not names.
    #[error("{0:?} is not a name; write the path without it")]
    Dots(String),
    /// A character that would be taken for something else.
    #[error("name {0:?} contains '/' or a NUL byte")]
    Forbidden(String),
    /// Too long a name.
    #[error("a name of {0} bytes is longer than {NAME_BYTES}")]
    LongName(usize),
    /// Too long a path.
    #[error("a path of {0} bytes is longer than {PATH_BYTES}")]
    LongPath(usize),
    /// Too deep a path.
    #[error("a path of {0} names is deeper than {PATH_DEPTH}")]
    Deep(usize),
    /// The operation needs a name, and the root has none.
    #[error("the root directory cannot be the target")]
    Root,
}

/// Checks one name.
///
/// # Errors
/// [`NameError`].
pub fn check_name(name: &str) -> Result<(), NameError> {
    match name {
        "" => Err(NameError::Empty),
        "." | ".." => Err(NameError::Dots(name.into())),
        _ if name.len() > NAME_BYTES => Err(NameError::LongName(name.len())),
        _ if name.contains(['/', '\0']) => Err(NameError::Forbidden(name.into())),
        _ => Ok(()),
    }
}

/// Splits an absolute path into its names; `/` has none. One slash at the end is allowed, a double one is not.
///
/// # Errors
/// [`NameError`].
pub fn split_path(path: &str) -> Result<Vec<&str>, NameError> {
    if path.len() > PATH_BYTES {
        return Err(NameError::LongPath(path.len()));
    }
    let Some(rest) = path.strip_prefix('/') else {
        return Err(NameError::NotAbsolute(path.into()));
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() {
        return if path.len() <= 2 && path != "//" { Ok(Vec::new()) } else { Err(NameError::Empty) };
    }
    let names: Vec<&str> = rest.split('/').collect();
    if names.len() > PATH_DEPTH {
        return Err(NameError::Deep(names.len()));
    }
    names.iter().try_for_each(|name| check_name(name))?;
    Ok(names)
}

/// Splits an absolute path into its parent's names and its last name.
///
/// # Errors
/// [`NameError`]; [`NameError::Root`] for `/`.
pub fn split_parent(path: &str) -> Result<(Vec<&str>, &str), NameError> {
    let mut names = split_path(path)?;
    let last = names.pop().ok_or(NameError::Root)?;
    Ok((names, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_paths_split() {
        assert_eq!(split_path("/"), Ok(vec![]));
        assert_eq!(split_path("/a/b c/ü"), Ok(vec!["a", "b c", "ü"]));
        assert_eq!(split_path("/a/"), Ok(vec!["a"]));
        assert_eq!(split_parent("/a/b"), Ok((vec!["a"], "b")));
        assert_eq!(split_parent("/"), Err(NameError::Root));
        assert_eq!(split_path(&format!("/{}", "x".repeat(255))).map(|v| v.len()), Ok(1));
    }

    #[test]
    fn bad_paths_are_refused() {
        for path in ["", "a", "//", "/a//b", "/a/../b", "/.", "/a\0b"] {
            assert!(split_path(path).is_err(), "{path:?}");
        }
        assert!(matches!(split_path(&format!("/{}", "x".repeat(256))), Err(NameError::LongName(256))));
        assert!(matches!(split_path(&"/x".repeat(257)), Err(NameError::Deep(257))));
        assert!(matches!(split_path(&"/xxxx".repeat(1000)), Err(NameError::LongPath(5000))));
    }
}
