//! `quarry rebalance`.

use quarry_client::Client;
use quarry_proto::v1::{RebalanceReply, ServerFill};
use serde_json::{Value, json};

use crate::{
    args::Rebalance,
    context::Context,
    error::Outcome,
    human, info,
    output::Out,
    progress::{GoesOn, LOOK_EVERY, Progress, Way},
};

/// Evens out how full the chunkservers are, and waits until that is done.
pub async fn run(context: &Context, args: Rebalance) -> Outcome {
    let client = context.client().await?;
    let mut reply = client.rebalance(args.dry_run, args.stop).await?;
    if reply.running && !(args.dry_run || args.stop || args.no_wait) {
        reply = wait(context, client, reply).await?;
    }
    let mut out = Out::new();
    if context.global.json {
        out.json(&json_of(&reply)).await?;
        return out.flush().await;
    }
    for line in lines(&reply) {
        out.line(line).await?;
    }
    out.flush().await
}

/// Shows how far it is until nothing is left to move, or somebody ends it.
async fn wait(context: &Context, client: &Client, mut reply: RebalanceReply) -> Outcome<RebalanceReply> {
    let goes_on = GoesOn::new(
        &context.notes,
        "it goes on: `quarry rebalance` shows how far it is, `quarry rebalance --stop` ends it".into(),
    );
    let bar = Progress::of_work(context.bars.as_ref());
    let (mut way, mut before) = (Way::default(), None);
    while reply.running {
        way.left(reply.bytes_left);
        bar.show(&way, &sentence(&reply));
        if before.replace(reply.moves_left) != Some(reply.moves_left) {
            context.notes.verbose(sentence(&reply));
        }
        context.world.clock.sleep(LOOK_EVERY).await;
        // A look only: what somebody else has ended is not begun again.
        reply = client.rebalance(true, false).await?;
    }
    bar.finish();
    goes_on.ended();
    Ok(reply)
}

fn json_of(reply: &RebalanceReply) -> Value {
    let server = |server: &ServerFill| {
        json!({
            "id": info::server_id(&server.server),
            "address": server.address,
            "used_bytes": server.used_bytes,
            "capacity_bytes": server.capacity_bytes,
            "planned_bytes": server.planned_bytes,
        })
    };
    json!({
        "running": reply.running,
        "moves_left": reply.moves_left,
        "bytes_left": reply.bytes_left,
        "bytes_moved": reply.bytes_moved,
        "eta_ms": reply.eta_known.then_some(reply.eta_ms),
        "reason": reply.reason,
        "servers": reply.servers.iter().map(server).collect::<Vec<_>>(),
    })
}

fn lines(reply: &RebalanceReply) -> Vec<String> {
    let row = |server: &ServerFill| {
        vec![
            server.address.clone(),
            human::size(server.capacity_bytes, true),
            human::size(server.used_bytes, true),
            human::share(server.used_bytes, server.capacity_bytes),
            human::size(server.planned_bytes, true),
            human::share(server.planned_bytes, server.capacity_bytes),
        ]
    };
    let rows: Vec<Vec<String>> = reply.servers.iter().map(row).collect();
    let heads = ["CHUNKSERVER", "CAPACITY", "USED", "USE", "PLANNED", "USE THEN"];
    let mut lines = if rows.is_empty() { Vec::new() } else { human::table(&heads, &heads[1..], &rows) };
    lines.push(sentence(reply));
    lines
}

fn sentence(reply: &RebalanceReply) -> String {
    let (moves, bytes) = (reply.moves_left, human::size(reply.bytes_left, true));
    let what = match (reply.running, moves) {
        (true, _) => {
            format!("under way: {moves} moves left, {bytes}, {}", human::end(reply.eta_known, reply.eta_ms))
        }
        (false, 0) => "nothing is left to move".into(),
        (false, _) => format!("not under way: {moves} moves, {bytes}, would even it out"),
    };
    let moved = match reply.bytes_moved {
        0 => String::new(),
        bytes => format!("; {} moved", human::size(bytes, true)),
    };
    let reason = if reply.reason.is_empty() { String::new() } else { format!("; {}", reply.reason) };
    format!("{what}{moved}{reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply() -> RebalanceReply {
        RebalanceReply {
            running: true,
            moves_left: 2,
            bytes_left: 1024,
            servers: vec![ServerFill {
                server: vec![1; 16].into(),
                address: "h:1".into(),
                used_bytes: 80,
                capacity_bytes: 100,
                planned_bytes: 64,
            }],
            ..Default::default()
        }
    }

    #[test]
    fn fill_is_shown_before_and_after() {
        assert_eq!(
            lines(&reply()),
            [
                "CHUNKSERVER  CAPACITY  USED  USE  PLANNED  USE THEN",
                "h:1               100    80  80%       64       64%",
                "under way: 2 moves left, 1.0K, when it will be done is unknown",
            ]
        );
    }

    #[test]
    fn without_a_chunkserver_there_is_no_empty_table() {
        let none = RebalanceReply { reason: "no chunkserver takes part".into(), ..Default::default() };
        assert_eq!(lines(&none), ["nothing is left to move; no chunkserver takes part"]);
    }

    #[test]
    fn what_ended_and_what_would_be_done_are_told_apart() {
        let ended =
            RebalanceReply { running: false, bytes_moved: 2048, reason: "balanced".into(), moves_left: 0, ..reply() };
        assert_eq!(sentence(&ended), "nothing is left to move; 2.0K moved; balanced");
        let planned = RebalanceReply { running: false, ..reply() };
        assert_eq!(sentence(&planned), "not under way: 2 moves, 1.0K, would even it out");
    }

    #[test]
    fn json_has_an_end_only_where_it_is_known() {
        let value = json_of(&reply());
        assert_eq!((&value["eta_ms"], value["running"].as_bool()), (&Value::Null, Some(true)));
        assert_eq!(value["servers"][0]["planned_bytes"], 64);
        let known = RebalanceReply { eta_known: true, eta_ms: 9, ..reply() };
        assert_eq!(json_of(&known)["eta_ms"], 9);
    }
}
