//! Warnings about asking for more copies than there are chunkservers: nothing is refused, since more may come.

use quarry_client::{Client, Setting};
use quarry_proto::v1::{ChunkserverStatus, StatusReply};

use crate::context::Context;

/// Settings that say how many copies there are to be.
const DEFAULT_REPLICAS: &str = "default-replicas";
const MIN_REPLICAS: &str = "min-replicas";

/// Chunkservers that take part: neither gone nor to be emptied.
fn active<'a>(servers: impl IntoIterator<Item = &'a ChunkserverStatus>) -> usize {
    servers.into_iter().filter(|server| matches!(server.state.as_str(), "alive" | "suspect")).count()
}

/// Warns when files are to have more copies than chunkservers take part. 0 says nothing by itself.
pub async fn warn_replicas(context: &Context, client: &Client, wanted: u32) {
    // A warning that cannot be made is left out: what was asked for is done.
    let Ok(status) = client.status().await else { return };
    too_many(wanted, &status).iter().for_each(|warning| context.notes.warning(warning));
}

fn too_many(wanted: u32, status: &StatusReply) -> Option<String> {
    let there = active(&status.chunkservers);
    (wanted as usize > there).then(|| {
        format!("{wanted} copies are wanted, and {there} chunkservers take part: the others are made when more come")
    })
}

/// Warns when a setting that was just changed asks for more copies than chunkservers take part.
pub async fn warn_settings(context: &Context, client: &Client, changed: &[Setting]) {
    let value = |name: &str| changed.iter().find(|setting| setting.name == name)?.value.parse::<u32>().ok();
    let (default, min) = (value(DEFAULT_REPLICAS), value(MIN_REPLICAS));
    if default.is_none() && min.is_none() {
        return;
    }
    let Ok(status) = client.status().await else { return };
    if let Some(min) = min.filter(|min| *min as usize > active(&status.chunkservers)) {
        let there = active(&status.chunkservers);
        context.notes.warning(format!(
            "{MIN_REPLICAS} is {min}, and {there} chunkservers take part: files that want so many copies cannot be written \
             until more come"
        ));
    }
    default.and_then(|wanted| too_many(wanted, &status)).iter().for_each(|warning| context.notes.warning(warning));
}

/// Warns when without the chunkserver at `address` too few take part for what new files want, or for any write.
pub async fn warn_without(context: &Context, client: &Client, id: &[u8], address: &str) {
    let (Ok(status), Ok(settings)) = (client.status().await, client.settings().await) else { return };
    let value = |name: &str| settings.iter().find(|setting| setting.name == name)?.value.parse().ok();
    let (wanted, min) = (value(DEFAULT_REPLICAS).unwrap_or(1), value(MIN_REPLICAS).unwrap_or(1));
    without(&status, id, address, wanted, min).iter().for_each(|warning| context.notes.warning(warning));
}

fn without(status: &StatusReply, id: &[u8], address: &str, wanted: usize, min: usize) -> Option<String> {
    let left = active(status.chunkservers.iter().filter(|server| server.server != id));
    if left >= wanted {
        return None;
    }
    let writes = if left < min.min(wanted) {
        format!("; writes are refused below {MIN_REPLICAS}, which is {min}")
    } else {
        String::new()
    };
    Some(format!(
        "without {address} {left} chunkservers take part, and {DEFAULT_REPLICAS} is {wanted}: what finds no other place \
         stays on it, and it is not done before others come{writes}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(states: &[&str]) -> StatusReply {
        let server = |(n, state): (usize, &&str)| ChunkserverStatus {
            server: vec![n as u8].into(),
            state: (*state).into(),
            ..Default::default()
        };
        StatusReply { chunkservers: states.iter().enumerate().map(server).collect(), ..Default::default() }
    }

    #[test]
    fn more_copies_than_servers_that_take_part_are_warned_of() {
        let status = status(&["alive", "suspect", "draining", "dead", "maintenance", "decommissioned"]);
        assert_eq!((too_many(0, &status), too_many(2, &status)), (None, None));
        assert!(too_many(3, &status).unwrap().starts_with("3 copies are wanted, and 2 chunkservers take part"));
    }

    #[test]
    fn a_drain_that_leaves_too_few_is_warned_of() {
        let status = status(&["alive", "alive", "alive", "alive", "draining"]);
        let told = |id: u8, wanted, min| without(&status, &[id], "h:1", wanted, min);
        assert_eq!(told(0, 3, 2), None);
        let few = told(0, 4, 2).unwrap();
        assert!(few.starts_with("without h:1 3 chunkservers take part, and default-replicas is 4"), "{few}");
        assert!(!few.contains("writes are refused") && told(0, 4, 4).unwrap().contains("writes are refused"));
        assert_eq!(told(4, 4, 4), None, "it did not take part");
    }
}
