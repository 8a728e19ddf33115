//! The command line of `quarry watch`.

use std::ffi::OsString;

use clap::{Args, ValueEnum};
use quarry_client::{ChangeKind, Revision};

/// `watch`.
#[derive(Debug, Args)]
pub struct Watch {
    /// Begin behind this revision, with the `oldest` change that is kept, or `now`
    #[arg(long, value_name = "REVISION", default_value = "now", value_parser = from)]
    pub from: From,
    /// Only these kinds of changes [default: all]
    #[arg(long, value_name = "KIND,…", value_delimiter = ',')]
    pub only: Vec<Kind>,
    /// End when all is printed that has changed until now, with a last line that has the revision to go on from
    #[arg(long)]
    pub until_now: bool,
    /// Path in the cluster; it need not be there
    #[arg(value_name = "REMOTE", default_value = "/")]
    pub remote: OsString,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// With what changes from now on.
    Now,
    /// With the oldest change that is kept.
    Oldest,
    /// Behind a revision.
    After(Revision),
}

fn from(text: &str) -> Result<From, String> {
    match text {
        "now" => Ok(From::Now),
        "oldest" => Ok(From::Oldest),
        revision => revision.parse().map(From::After).map_err(|error| format!("{error}; or write now, or oldest")),
    }
}

/// Kinds of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Files and directories
    Names,
    /// Chunkservers: registered, and what operators want of them
    Servers,
    /// Chunkservers: dead, partitioned, alive again
    Verdicts,
    /// Settings, leaders, lineages
    Cluster,
}

impl std::convert::From<Kind> for ChangeKind {
    fn from(from: Kind) -> Self {
        match from {
            Kind::Names => ChangeKind::Names,
            Kind::Servers => ChangeKind::Servers,
            Kind::Verdicts => ChangeKind::Verdicts,
            Kind::Cluster => ChangeKind::Cluster,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Verb, tests::parse},
        *,
    };

    #[test]
    fn a_watch_begins_now_with_the_oldest_or_behind_a_revision() {
        let watch = |line: &str| match parse(&format!("quarry watch{line}")).map(|cli| cli.verb) {
            Ok(Verb::Watch(watch)) => watch,
            other => panic!("{other:?}"),
        };
        let plain = watch("");
        assert_eq!(
            (plain.from, plain.remote.to_str(), plain.only.len(), plain.until_now),
            (From::Now, Some("/"), 0, false)
        );
        let text = "3-67e55044-10b1-426f-9247-bb680e5fe0c8:7:1";
        let behind = watch(&format!(" --from {text} /d --until-now --only names,verdicts"));
        assert_eq!((behind.from, behind.until_now), (From::After(text.parse().unwrap()), true));
        assert_eq!(behind.only, [Kind::Names, Kind::Verdicts]);
        assert_eq!(watch(" --from oldest").from, From::Oldest);
        for bad in ["--from 7", "--only colours", "/a /b"] {
            assert!(parse(&format!("quarry watch {bad}")).is_err(), "{bad}");
        }
    }
}
