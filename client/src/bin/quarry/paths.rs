//! How names map between this machine and the cluster.

use std::{
    ffi::OsStr,
    path::{Component, Path, PathBuf},
};

use quarry_types::name::{check_name, split_path};

use crate::error::{CliError, Outcome};

/// A path in the cluster, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Without a slash at the end, except for the root.
    pub path: String,
    /// It was written with a slash at the end: a directory is meant.
    pub directory_meant: bool,
}

impl Remote {
    /// Checks what the user wrote.
    pub fn parse(text: &OsStr) -> Outcome<Remote> {
        let Some(text) = text.to_str() else {
            return Err(CliError::usage(format!(
                "path {text:?} is not UTF-8; names in the cluster are, so rename it or write another"
            )));
        };
        let names = split_path(text).map_err(|error| CliError::usage(error.to_string()).about(format!("{text:?}")))?;
        Ok(Remote { path: format!("/{}", names.join("/")), directory_meant: text.ends_with('/') })
    }

    /// Checks several.
    pub fn parse_all(texts: &[std::ffi::OsString]) -> Outcome<Vec<Remote>> {
        texts.iter().map(|text| Remote::parse(text)).collect()
    }

    /// The last name; the root has none.
    pub fn name(&self) -> Option<&str> {
        self.path.rsplit('/').next().filter(|name| !name.is_empty())
    }
}

/// The path of `name` in the directory `directory`.
pub fn join(directory: &str, name: &str) -> String {
    format!("{}/{name}", directory.trim_end_matches('/'))
}

/// The last name of a listed path.
pub fn name_of(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// The name that a local file gets in a directory of the cluster; `None` when its path does not end with one
/// (`.`, `..`, `/`), so that its contents go into the directory itself.
pub fn remote_name(local: &Path) -> Outcome<Option<String>> {
    // `components` drops a last `.`, but who writes `dir/.` means what is in it.
    if local.as_os_str().as_encoded_bytes().ends_with(b"/.") {
        return Ok(None);
    }
    match local.components().next_back() {
        Some(Component::Normal(name)) => checked_name(local, name).map(Some),
        _ => Ok(None),
    }
}

/// A local name as one of the cluster's.
pub fn checked_name(local: &Path, name: &OsStr) -> Outcome<String> {
    let refused = |why: String| CliError::usage(format!("local {}: {why}", local.display()));
    let text = name.to_str().ok_or_else(|| {
        refused(format!("its name {name:?} is not UTF-8 and the cluster's names are; rename it, then try again"))
    })?;
    check_name(text).map_err(|error| refused(error.to_string()))?;
    Ok(text.into())
}

/// Where an entry of the cluster goes inside a local directory. A name that would lead out of it is refused, so
/// that no cluster can write elsewhere on this machine.
pub fn local_child(directory: &Path, name: &str) -> Outcome<PathBuf> {
    check_name(name)
        .map_err(|error| CliError::usage(error.to_string()).about(format!("name {name:?} in the cluster")))?;
    Ok(directory.join(name))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn remote_paths_are_checked_and_normal() {
        let parse = |text: &str| Remote::parse(OsStr::new(text)).map(|r| (r.path, r.directory_meant));
        assert_eq!(parse("/a/b").unwrap(), ("/a/b".into(), false));
        assert_eq!(parse("/a/b/").unwrap(), ("/a/b".into(), true));
        assert_eq!(parse("/").unwrap(), ("/".into(), true));
        for bad in ["", "a", "a/b", "/a/../b", "/a//b", "//"] {
            assert_eq!(parse(bad).unwrap_err().exit_number(), 2, "{bad}");
        }
        assert!(Remote::parse(OsStr::from_bytes(b"/\xff")).unwrap_err().to_string().contains("UTF-8"));
    }

    #[test]
    fn names_join_without_double_slashes() {
        assert_eq!(join("/", "a"), "/a");
        assert_eq!(join("/a", "b"), "/a/b");
        assert_eq!(name_of("/a/b"), "b");
        assert_eq!(Remote::parse(OsStr::new("/")).unwrap().name(), None);
        assert_eq!(Remote::parse(OsStr::new("/a/b/")).unwrap().name(), Some("b"));
    }

    #[test]
    fn local_names_map_to_remote_ones() {
        assert_eq!(remote_name(Path::new("x/y.txt")).unwrap(), Some("y.txt".into()));
        assert_eq!(remote_name(Path::new("x/y/")).unwrap(), Some("y".into()));
        assert_eq!(remote_name(Path::new("x/..")).unwrap(), None);
        assert_eq!(remote_name(Path::new("/")).unwrap(), None);
        assert_eq!(remote_name(Path::new(".")).unwrap(), None);
        assert_eq!(remote_name(Path::new("x/.")).unwrap(), None);
        let error = remote_name(Path::new(OsStr::from_bytes(b"dir/\xffname"))).unwrap_err();
        assert!(error.to_string().contains("name") && error.to_string().contains("UTF-8"), "{error}");
    }

    #[test]
    fn no_name_of_the_cluster_leads_out_of_the_local_directory() {
        assert_eq!(local_child(Path::new("d"), "x").unwrap(), Path::new("d/x"));
        for bad in ["..", ".", "a/b", "", "/etc", "a\0b"] {
            assert!(local_child(Path::new("d"), bad).is_err(), "{bad:?}");
        }
    }
}
