//! The verbs of operators: repairs, explanations, servers, balance.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Subcommand, builder::NonEmptyStringValueParser};
use quarry_client::ChunkId;

use super::values::{address, maintenance};

/// `repairs`.
#[derive(Debug, Args)]
pub struct Repairs {
    /// Show it anew each second until nothing is left; where it is not shown on a terminal, a line for each change
    #[arg(long)]
    pub watch: bool,
    /// Also what was finished of late
    #[arg(long)]
    pub finished: bool,
    /// Chunks to list at most [default: as many as the master tells at once]
    #[arg(long, value_name = "N", default_value = "0", hide_default_value = true)]
    pub limit: u32,
    /// Let repair go on though many servers went at once: what was held is copied from now on
    #[arg(long, conflicts_with_all = ["watch", "finished", "limit"])]
    pub release_brake: bool,
}

/// `masters …`.
#[derive(Debug, Subcommand)]
pub enum MastersVerb {
    /// Show the masters, their part and how far each is
    Status,
    /// Take new masters into the group, which were made by `quarry-master join` and run
    ///
    /// They are sent everything first, and vote as soon as they have caught up, all at once. Interrupted, they stay in the
    /// group without a vote, and the same command goes on. For a master that is in the group already it is its new address.
    Add {
        /// Where the masters are
        #[arg(required = true, value_name = "HOST:PORT", value_parser = address)]
        addresses: Vec<String>,
        /// Leave them without a vote
        #[arg(long)]
        learner: bool,
    },
    /// Let masters vote that do not yet, as soon as they have caught up
    Promote {
        /// As `m2`, or by their addresses
        // Not `masters`: clap would take it for the global flag of that name.
        #[arg(required = true, value_name = "MASTER")]
        members: Vec<String>,
    },
    /// Take a master out of the group for good
    ///
    /// It need not run. To use its machine again make a new master there, in an empty directory.
    Remove {
        /// As `m2`, or by its address
        #[arg(value_name = "MASTER")]
        master: String,
    },
    /// Hand the leadership to a master: no request fails, they wait for a moment
    TransferLeader {
        /// As `m2`, or by its address
        #[arg(value_name = "TO")]
        to: String,
    },
    /// Hand the leadership to any other master, before this one is stopped
    StepDown,
    /// Have the masters compare a hash of what they hold, and show who differs
    ///
    /// They do so by themselves every `compare-interval` (`quarry settings`). Each hashes its state as it was right after
    /// the same entry of the log, in the background. A master that does not answer is shown as `unknown`; one that differs
    /// is an alarm that `quarry status` shows until it is replaced, and this ends with an error.
    Compare,
    /// Let the masters use what the release that all of them run brought, for good
    ///
    /// While masters of two releases run, they do only what both can. When every one of them runs the newer release, and the
    /// older one will not be started again, this puts the highest feature level in force that all know. Refused, with the
    /// reason, while a master does not know it or does not answer; a master of an older release stops from then on.
    Upgrade {
        /// This level, instead of the highest that all know
        #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(1..))]
        to: Option<u32>,
    },
}

/// `explain …`. With -v every filter and every term of the score.
#[derive(Debug, Subcommand)]
pub enum Explain {
    /// What would be done about a chunk now, and why; with -v every filter and every term of every candidate's score
    Chunk {
        /// The chunk, as `quarry chunks` and `quarry repairs` show it
        #[arg(value_name = "ID")]
        chunk: ChunkId,
    },
    /// What the master thinks of a chunkserver, and whether it would give it a new chunk; with -v every filter and term
    Server(Server),
    /// Where a chunk of a file would go now, and why not elsewhere; with -v every filter and every term
    Placement {
        /// A file in the cluster, or a directory for a new file in it
        #[arg(value_name = "REMOTE")]
        remote: OsString,
    },
}

/// One chunkserver.
#[derive(Debug, Args)]
pub struct Server {
    /// The chunkserver: its address or its id as `quarry status` shows it, or the first characters of the id, 4 at least
    #[arg(value_name = "SERVER", value_parser = NonEmptyStringValueParser::new())]
    pub server: String,
}

/// `drain` and `decommission`.
#[derive(Debug, Args)]
pub struct Leave {
    /// Return at once; without it, the command returns when the chunkserver is empty, however long that takes
    #[arg(long)]
    pub no_wait: bool,
    /// Which one
    #[command(flatten)]
    pub server: Server,
}

/// `maintenance`.
#[derive(Debug, Args)]
pub struct Maintenance {
    /// For how long, as in 30m, 2h or 3d; it ends by itself
    #[arg(long = "for", value_name = "TIME", value_parser = maintenance, required_unless_present = "end")]
    pub lasting: Option<Duration>,
    /// End it now
    #[arg(long, conflicts_with = "lasting")]
    pub end: bool,
    /// Which one
    #[command(flatten)]
    pub server: Server,
}

/// `rebalance`.
#[derive(Debug, Args)]
pub struct Rebalance {
    /// Move nothing: show how full the chunkservers are and would be, and how far a rebalancing under way has come
    #[arg(long, conflicts_with_all = ["stop", "no_wait"])]
    pub dry_run: bool,
    /// End one that is under way, and let none begin by itself until `quarry settings balance-automatic=1`; what was moved
    /// stays moved
    #[arg(long)]
    pub stop: bool,
    /// Return at once; without it, the command returns when nothing is left to move, however long that takes
    #[arg(long)]
    pub no_wait: bool,
}

/// `metadata …`.
#[derive(Debug, Subcommand)]
pub enum Metadata {
    /// Write the metadata of this moment to one checksummed file: names, chunks, settings, but no data and no key
    ///
    /// Everything that was acknowledged before is in it. `quarry-master restore` makes a master from it. It is written to FILE.part
    /// first, so that FILE is a whole backup or none.
    Backup {
        /// Replace FILE if it exists
        #[arg(long)]
        overwrite: bool,
        /// Local file to make
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// List what does not match between the namespace and what chunkservers have reported
    ///
    /// Chunks without a good replica, or with too few; replicas of chunks that the namespace does not know, which are deleted when
    /// nothing holds that back; ids that were never given out. Says when chunkservers have not reported yet: the picture is
    /// incomplete then.
    Verify(MetadataVerify),
    /// Let deletions and aborts go that are held back since a restore or a recovery
    ///
    /// What was removed, aborted or is an orphan is deleted from now on, by the rules and times that hold always. Refused while
    /// chunkservers that belong to the cluster have not reported.
    Release {
        /// Also while chunkservers have not reported
        #[arg(long)]
        force: bool,
    },
}

/// `quarry admin …`.
#[derive(Debug, Subcommand)]
pub enum Admin {
    /// Write which servers there are and which chunk is where, for `quarry-sim what-if --cluster FILE`
    ///
    /// No names of files are in it. Each chunk is as it was when it was looked at; others may change meanwhile.
    ExportState {
        /// Replace FILE if it exists
        #[arg(long)]
        overwrite: bool,
        /// Local file to make (JSON)
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// `metadata verify`.
#[derive(Debug, Args)]
pub struct MetadataVerify {
    /// Rows of each list at most; counts are exact all the same
    #[arg(long, value_name = "N", default_value = "1000")]
    pub limit: usize,
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Verb, tests::parse},
        *,
    };

    #[test]
    fn repairs_are_listed_watched_or_let_go() {
        let Ok(Verb::Repairs(repairs)) = parse("quarry repairs --watch --finished --limit 5").map(|cli| cli.verb)
        else {
            panic!()
        };
        assert_eq!((repairs.watch, repairs.finished, repairs.limit), (true, true, 5));
        assert!(parse("quarry repairs --release-brake").is_ok());
        assert!(parse("quarry repairs --release-brake --limit 3").is_err());
        assert!(parse("quarry repairs --release-brake --watch").is_err());
    }

    #[test]
    fn chunks_are_explained_by_any_spelling_of_their_id() {
        for id in ["12", "c12"] {
            let cli = parse(&format!("quarry explain chunk {id} -v")).unwrap();
            let Verb::Explain(Explain::Chunk { chunk }) = cli.verb else { panic!() };
            assert_eq!((chunk, cli.global.verbose), (ChunkId(12), true));
        }
        assert!(parse("quarry explain chunk x").is_err() && parse("quarry explain").is_err());
        assert!(parse("quarry explain server h:1").is_ok() && parse("quarry explain placement /a").is_ok());
    }

    #[test]
    fn a_maintenance_has_an_end_and_servers_have_names() {
        let Ok(Verb::Maintenance(one)) = parse("quarry maintenance h:1 --for 30m").map(|cli| cli.verb) else {
            panic!()
        };
        assert_eq!((one.lasting, one.end), (Some(Duration::from_secs(1800)), false));
        assert!(parse("quarry maintenance h:1 --end").is_ok());
        for bad in ["maintenance h:1", "maintenance h:1 --for 30m --end", "maintenance --for 30m", "drain", "drain "] {
            assert!(parse(&format!("quarry {bad}")).is_err(), "{bad}");
        }
        assert!(parse("quarry drain --no-wait h:1").is_ok() && parse("quarry decommission abc --no-wait").is_ok());
    }

    #[test]
    fn masters_are_promoted_by_number_and_the_group_is_named_beside() {
        let cli = parse("quarry --masters h:1 masters promote m2 h:3").unwrap();
        assert_eq!(cli.global.masters.as_deref(), Some("h:1"));
        let Verb::Masters { verb: Some(MastersVerb::Promote { members }), .. } = cli.verb else { panic!() };
        assert_eq!(members, ["m2", "h:3"]);
        assert!(parse("quarry masters promote m2 --masters h:1").is_ok() && parse("quarry masters promote").is_err());
    }

    #[test]
    fn metadata_is_backed_up_verified_and_released() {
        for good in
            ["backup f", "backup --overwrite f", "verify", "verify --limit 5 --json", "release", "release --force"]
        {
            assert!(parse(&format!("quarry metadata {good}")).is_ok(), "{good}");
        }
        for bad in ["", "backup", "backup a b", "verify x", "release x"] {
            assert!(parse(&format!("quarry metadata {bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn rebalancing_is_tried_started_or_stopped() {
        for good in ["", " --dry-run", " --no-wait", " --stop"] {
            assert!(parse(&format!("quarry rebalance{good}")).is_ok(), "{good}");
        }
        assert!(parse("quarry rebalance --dry-run --stop").is_err());
    }
}
