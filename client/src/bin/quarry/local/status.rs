//! `quarry local status`.

use quarry_proto::v1::StatusReply;
use serde_json::{Value, json};

use super::{
    cluster::{Cluster, Member, Role},
    process::Running,
};
use crate::{args::LocalDir, context::Context, error::Outcome, human, output::Out};

/// Runs it.
pub async fn run(context: &Context, args: &LocalDir) -> Outcome {
    let cluster = Cluster::open(&args.dir)?;
    let mut out = Out::new();
    if context.global.json {
        out.json(&json_of(&cluster)?).await?;
        return out.flush().await;
    }
    let mut rows = Vec::new();
    for member in &cluster.members {
        let running = Running::find(&cluster, member)?;
        rows.push(vec![
            member.name.clone(),
            member.address(),
            member.rack.clone().unwrap_or_else(|| "-".into()),
            running.map_or_else(|| "-".into(), |running| running.pid.to_string()),
            if running.is_some() { "running".into() } else { "stopped".into() },
        ]);
    }
    for line in human::table(&["NAME", "ADDRESS", "RACK", "PID", "STATE"], &["PID"], &rows) {
        out.line(line).await?;
    }
    out.flush().await
}

/// `{processes: [{name, role, pid, address, data_dir, running}]}`; the pid is null when it does not run.
pub fn json_of(cluster: &Cluster) -> Outcome<Value> {
    let mut processes = Vec::new();
    for member in &cluster.members {
        let running = Running::find(cluster, member)?;
        processes.push(json!({
            "name": member.name,
            "role": member.role.name(),
            "pid": running.map(|running| running.pid),
            "address": member.address(),
            "rack": member.rack,
            "data_dir": cluster.data_dir(member).to_string_lossy(),
            "log": cluster.log(member).to_string_lossy(),
            "running": running.is_some(),
        }));
    }
    Ok(json!({"dir": cluster.dir.to_string_lossy(), "masters": cluster.masters(), "processes": processes}))
}

/// Whether the cluster's own status knows the member as running. A chunkserver that is being drained, in maintenance or
/// decommissioned is what an operator wants it to be: only its beats say whether it is up.
pub fn is_up(status: &StatusReply, member: &Member) -> bool {
    let address = member.address();
    match member.role {
        Role::Master => status.masters.iter().any(|master| master.address == address && master.reachable),
        Role::Chunkserver => status.chunkservers.iter().any(|server| server.address == address && server.up),
    }
}

#[cfg(test)]
mod tests {
    use quarry_proto::v1::ChunkserverStatus;

    use super::*;

    #[test]
    fn a_chunkserver_is_up_when_its_beats_come_whatever_an_operator_wants_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::new(dir.path().into(), 1, &[9400]);
        cluster.add_chunkserver(9410);
        let member = cluster.of_role(Role::Chunkserver).next().unwrap();
        let is_up_as = |state: &str, up| {
            let server = ChunkserverStatus { address: member.address(), state: state.into(), up, ..Default::default() };
            is_up(&StatusReply { chunkservers: vec![server], ..Default::default() }, member)
        };
        for state in ["alive", "draining", "maintenance", "decommissioned", "suspect"] {
            assert!(is_up_as(state, true), "{state}");
        }
        // What an operator wants of it shows also while it is away.
        for state in ["maintenance", "decommissioned", "dead"] {
            assert!(!is_up_as(state, false), "{state}");
        }
        assert!(!is_up(&StatusReply::default(), member));
    }

    #[test]
    fn json_has_the_names_of_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::new(dir.path().into(), 1, &[9400]);
        cluster.add_chunkserver(9410);
        let value = json_of(&cluster).unwrap();
        let server = &value["processes"][1];
        for name in ["name", "role", "pid", "address", "data_dir", "running"] {
            assert!(server.get(name).is_some(), "{name}");
        }
        assert_eq!(server["role"], "chunkserver");
        assert_eq!(server["address"], "127.0.0.1:9410");
        assert_eq!((server["running"].clone(), server["pid"].clone()), (json!(false), Value::Null));
    }
}
