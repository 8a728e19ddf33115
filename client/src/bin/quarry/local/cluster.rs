//! The description of a local cluster, `cluster.json`.

use std::path::{Path, PathBuf};

use quarry_types::ErrorCode;
use serde::{Deserialize, Serialize};

use crate::{
    error::{CliError, Outcome},
    local_fs,
};

/// Format of `cluster.json`. A newer one is refused.
const VERSION: u32 = 1;
/// All servers listen here.
const HOST: &str = "127.0.0.1";

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Master,
    Chunkserver,
}

impl Role {
    /// Its name in output and in process names.
    pub fn name(self) -> &'static str {
        match self {
            Role::Master => "master",
            Role::Chunkserver => "chunkserver",
        }
    }

    /// The program that does it.
    pub fn program(self) -> &'static str {
        match self {
            Role::Master => "quarry-master",
            Role::Chunkserver => "quarry-chunkserver",
        }
    }
}

/// One process of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    pub name: String,
    pub role: Role,
    pub port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
}

impl Member {
    /// Where it listens, as `quarry status` shows it.
    pub fn address(&self) -> String {
        format!("{HOST}:{}", self.port)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    racks: u16,
    processes: Vec<Member>,
}

/// A local cluster: its directory and its processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Absolute.
    pub dir: PathBuf,
    /// The racks that chunkservers are dealt out to.
    pub racks: u16,
    /// Masters first.
    pub members: Vec<Member>,
}

impl Cluster {
    /// A new one with masters at these ports and no chunkservers.
    pub fn new(dir: PathBuf, racks: u16, master_ports: &[u16]) -> Cluster {
        let master = |(port, number): (&u16, u32)| Member {
            name: format!("master-{number}"),
            role: Role::Master,
            port: *port,
            rack: None,
        };
        Cluster { dir, racks, members: master_ports.iter().zip(1..).map(master).collect() }
    }

    /// Adds a chunkserver, in the rack whose turn it is.
    pub fn add_chunkserver(&mut self, port: u16) {
        let number = self.of_role(Role::Chunkserver).count() + 1;
        let rack = format!("rack-{}", (number - 1) % usize::from(self.racks.max(1)) + 1);
        self.members.push(Member {
            name: format!("chunkserver-{number}"),
            role: Role::Chunkserver,
            port,
            rack: Some(rack),
        });
    }

    /// The cluster in `dir`, if there is one.
    pub fn find(dir: &Path) -> Outcome<Option<Cluster>> {
        let dir = absolute(dir)?;
        let path = dir.join("cluster.json");
        let Some(text) = local_fs::read_text(&path)? else { return Ok(None) };
        parse(&text).map(|stored| Some(Cluster { dir, racks: stored.racks, members: stored.processes })).map_err(
            |why| CliError::local(format!("{} is not the description of a local cluster: {why}", path.display())),
        )
    }

    /// The cluster in `dir`, which must exist.
    pub fn open(dir: &Path) -> Outcome<Cluster> {
        Self::find(dir)?.ok_or_else(|| {
            CliError::new(
                ErrorCode::NotFound,
                format!(
                    "there is no local cluster in {0}; make one with `quarry local start --dir {0}`",
                    dir.display()
                ),
            )
        })
    }

    /// Writes `cluster.json`.
    pub fn save(&self) -> Outcome {
        let stored = Stored { version: VERSION, racks: self.racks, processes: self.members.clone() };
        let text = serde_json::to_string_pretty(&stored).map_err(|error| CliError::local(error.to_string()))?;
        local_fs::replace_text(&self.dir.join("cluster.json"), &format!("{text}\n"))
    }

    /// The process called `name`.
    pub fn member(&self, name: &str) -> Outcome<&Member> {
        self.members.iter().find(|member| member.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.members.iter().map(|member| member.name.as_str()).collect();
            CliError::new(
                ErrorCode::NotFound,
                format!("no process is called {name:?} in {}; there are: {}", self.dir.display(), names.join(", ")),
            )
        })
    }

    /// The processes of a role.
    pub fn of_role(&self, role: Role) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| member.role == role)
    }

    /// Where the masters are.
    pub fn master_addresses(&self) -> Vec<String> {
        self.of_role(Role::Master).map(Member::address).collect()
    }

    /// The value for `--masters`.
    pub fn masters(&self) -> String {
        self.master_addresses().join(",")
    }

    pub fn data_dir(&self, member: &Member) -> PathBuf {
        self.dir.join(&member.name)
    }

    pub fn log(&self, member: &Member) -> PathBuf {
        self.dir.join("logs").join(format!("{}.log", member.name))
    }

    pub fn pid_file(&self, member: &Member) -> PathBuf {
        self.dir.join("run").join(format!("{}.pid", member.name))
    }

    pub fn key_file(&self) -> PathBuf {
        self.dir.join("cluster.key")
    }

    /// The arguments that a process runs with.
    pub fn arguments(&self, member: &Member) -> Vec<std::ffi::OsString> {
        let mut arguments: Vec<std::ffi::OsString> = vec!["run".into(), "--data".into(), self.data_dir(member).into()];
        arguments.extend(["--key-file".into(), self.key_file().into()]);
        for flag in ["--listen", "--advertise"] {
            arguments.extend([flag.into(), member.address().into()]);
        }
        if member.role == Role::Chunkserver {
            let rack = member.rack.clone().unwrap_or_else(|| "rack-1".into());
            arguments.extend(["--masters".into(), self.masters().into(), "--rack".into(), rack.into()]);
        }
        // Several share the machine, so the system picks the port; the log has it.
        arguments.extend(["--http".into(), "127.0.0.1:0".into()]);
        arguments
    }
}

fn parse(text: &str) -> Result<Stored, String> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let Version { version } = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if version != VERSION {
        return Err(format!("it has format {version} and this release reads {VERSION}; use the release that made it"));
    }
    let stored: Stored = serde_json::from_str(text).map_err(|error| error.to_string())?;
    // Names become file names.
    let good = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    match stored.processes.iter().find(|member| !good(&member.name)) {
        Some(member) => Err(format!("a process is called {:?}", member.name)),
        None => Ok(stored),
    }
}

/// The path from the root, one and the same however it is spelled: servers outlive the directory that the command ran
/// in, and are found again by the path in their command lines. What does not exist yet has no links in it.
pub fn absolute(dir: &Path) -> Outcome<PathBuf> {
    let failed = |error| CliError::file("find", dir, &error);
    let mut there = std::path::absolute(dir).map_err(failed)?;
    let mut missing = Vec::new();
    let dir = loop {
        match (there.canonicalize(), there.file_name(), there.parent()) {
            (Ok(found), _, _) => break missing.iter().rev().fold(found, |dir, name| dir.join(name)),
            (Err(error), Some(name), Some(parent)) if error.kind() == std::io::ErrorKind::NotFound => {
                missing.push(name.to_owned());
                there = parent.to_path_buf();
            }
            (Err(error), _, _) => return Err(failed(error)),
        }
    };
    match dir.to_str() {
        Some(text) if !text.contains(',') => Ok(dir),
        // The servers' flags and their process list could not tell such a path from others.
        _ => Err(CliError::usage(format!("{dir:?}: give a --dir that is UTF-8 and has no comma"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(dir: &Path) -> Cluster {
        let mut cluster = Cluster::new(dir.to_path_buf(), 2, &[9400]);
        (1..=3).for_each(|i| cluster.add_chunkserver(9400 + 10 * i));
        cluster
    }

    #[test]
    fn a_cluster_is_found_as_it_was_saved() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Cluster::find(dir.path()).unwrap(), None);
        assert_eq!(Cluster::open(dir.path()).unwrap_err().exit_number(), 3);
        let saved = cluster(dir.path());
        saved.save().unwrap();
        assert_eq!(Cluster::open(dir.path()).unwrap(), saved);
        let racks: Vec<_> = saved.members.iter().filter_map(|m| m.rack.as_deref()).collect();
        assert_eq!(racks, ["rack-1", "rack-2", "rack-1"]);
        assert_eq!(saved.member("chunkserver-2").unwrap().address(), "127.0.0.1:9420");
        assert!(saved.member("nobody").unwrap_err().to_string().contains("chunkserver-3"));
    }

    #[test]
    fn a_foreign_description_is_refused() {
        for (text, why) in [
            ("", "EOF"),
            (r#"{"version":2}"#, "format 2"),
            (r#"{"version":1,"racks":1,"processes":[],"more":1}"#, "more"),
            (r#"{"version":1,"racks":1,"processes":[{"name":"../x","role":"master","port":1}]}"#, "../x"),
        ] {
            let refused = parse(text).map(|_| ()).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
