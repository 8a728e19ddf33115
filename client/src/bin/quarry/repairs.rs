//! `quarry repairs`.

use std::collections::BTreeMap;

use bytes::Bytes;
use quarry_client::{ChunkId, Client};
use quarry_proto::v1::{RepairRow, RepairsReply};
use serde_json::{Value, json};

use crate::{
    args::Repairs,
    context::Context,
    error::Outcome,
    human, info,
    output::Out,
    progress::{LOOK_EVERY, Progress},
};

/// What servers are called, for eyes.
type Addresses = BTreeMap<Bytes, String>;

/// Shows the repair ledger, once or again and again, or ends the brake.
pub async fn run(context: &Context, args: Repairs) -> Outcome {
    let client = context.client().await?;
    if args.release_brake {
        return release_brake(context, client).await;
    }
    let mut look = Look { client, args: &args, addresses: (!context.global.json).then(Addresses::new) };
    if args.watch {
        return watch(context, &mut look).await;
    }
    let reply = look.again().await?;
    let mut out = Out::new();
    look.print(&mut out, &reply).await?;
    out.flush().await
}

async fn release_brake(context: &Context, client: &Client) -> Outcome {
    let released = client.release_brake().await?;
    let mut out = Out::new();
    if context.global.json {
        out.json(&json!({"released": released})).await?;
    } else if released.is_empty() {
        out.line("no brake holds repair").await?;
    } else {
        out.line(format!("released; what held repair: {released}")).await?;
    }
    out.flush().await
}

/// Shows it until nothing is left: anew on a terminal, elsewhere whenever the totals change.
async fn watch(context: &Context, look: &mut Look<'_>) -> Outcome {
    let mut out = Out::new();
    let shown = context.bars.as_ref().filter(|_| out.is_terminal());
    let bar = Progress::of_lines(shown);
    let mut before = None;
    loop {
        let reply = look.again().await?;
        let over = is_all_done(&reply);
        let now = (reply.total, reply.kept, reply.bytes_left, reply.by_missing.clone(), reply.brake.clone());
        if shown.is_some() && !over {
            bar.lines(&lines(&reply, look.addresses.as_ref()));
        } else if over || before.as_ref() != Some(&now) {
            bar.finish();
            match look.addresses {
                None => out.json(&json_of(&reply)).await?,
                Some(_) => out.line(totals(&reply).join("; ")).await?,
            }
            out.flush().await?;
        }
        if over {
            return Ok(());
        }
        before = Some(now);
        context.world.clock.sleep(LOOK_EVERY).await;
    }
}

/// Nothing misses anything. What failed a check may be kept as evidence for a day: nobody watches that.
fn is_all_done(reply: &RepairsReply) -> bool {
    reply.total <= reply.kept && reply.incomplete.is_empty()
}

struct Look<'a> {
    client: &'a Client,
    args: &'a Repairs,
    /// As far as they were needed; `None`: JSON is wanted, which has no need of them.
    addresses: Option<Addresses>,
}

impl Look<'_> {
    async fn again(&mut self) -> Outcome<RepairsReply> {
        let reply = self.client.repairs(self.args.limit, self.args.finished).await?;
        if let Some(addresses) = &mut self.addresses {
            let mut servers = reply.repairs.iter().flat_map(|row| [&row.source, &row.target]);
            if servers.any(|server| !server.is_empty() && !addresses.contains_key(server)) {
                let status = self.client.status().await?;
                *addresses = status.chunkservers.into_iter().map(|one| (one.server, one.address)).collect();
            }
        }
        Ok(reply)
    }

    async fn print(&self, out: &mut Out, reply: &RepairsReply) -> Outcome {
        if self.addresses.is_none() {
            return out.json(&json_of(reply)).await;
        }
        for line in lines(reply, self.addresses.as_ref()) {
            out.line(line).await?;
        }
        Ok(())
    }
}

fn json_of(reply: &RepairsReply) -> Value {
    json!({
        "repairs": reply.repairs.iter().map(row_json).collect::<Vec<_>>(),
        "total": reply.total,
        "kept": reply.kept,
        "by_missing": reply.by_missing,
        "bytes_left": reply.bytes_left,
        "bytes_per_second": reply.bytes_per_second,
        "eta_ms": reply.eta_known.then_some(reply.eta_ms),
        "assumes": reply.assumes,
        "brake": reply.brake,
        "incomplete": reply.incomplete,
    })
}

/// A chunk in the ledger.
pub fn row_json(row: &RepairRow) -> Value {
    json!({
        "chunk": row.chunk,
        "path": row.path,
        "missing": row.missing,
        "since_ms": row.since_ms,
        "state": row.state,
        "reason": row.reason,
        "source": info::server_or_none(&row.source),
        "target": info::server_or_none(&row.target),
        "bytes_done": row.bytes_done,
        "bytes_total": row.bytes_total,
        "next_attempt_ms": (row.next_attempt_ms > 0).then_some(row.next_attempt_ms),
        "eta_ms": row.eta_known.then_some(row.eta_ms),
        "good": row.good,
        "wanted": row.wanted,
        "attempts": row.attempts,
    })
}

fn lines(reply: &RepairsReply, addresses: Option<&Addresses>) -> Vec<String> {
    let mut lines = Vec::new();
    if !reply.repairs.is_empty() {
        let heads =
            ["CHUNK", "MISSING", "GOOD", "SINCE", "STATE", "SOURCE → TARGET", "DONE", "NEXT", "END", "PATH", "REASON"];
        let rows: Vec<Vec<String>> = reply.repairs.iter().map(|row| cells(row, addresses)).collect();
        lines.extend(human::table(&heads, &["MISSING", "GOOD", "SINCE", "DONE", "NEXT", "END"], &rows));
        let listed = reply.repairs.iter().filter(|row| !is_over(row)).count() as u64;
        if reply.total > listed {
            lines.push(format!("… and {} more", reply.total - listed));
        }
        lines.push(String::new());
    }
    lines.extend(totals(reply));
    lines
}

fn is_over(row: &RepairRow) -> bool {
    matches!(row.state.as_str(), "done" | "dropped")
}

fn cells(row: &RepairRow, addresses: Option<&Addresses>) -> Vec<String> {
    let address = |server: &Bytes| match addresses.and_then(|addresses| addresses.get(server)) {
        Some(address) => address.clone(),
        None => info::server_or_none(server).unwrap_or_else(|| "-".into()),
    };
    let none = || "-".to_string();
    let end = match row.eta_known {
        _ if is_over(row) => none(),
        true => human::duration(row.eta_ms),
        false => "unknown".into(),
    };
    vec![
        ChunkId(row.chunk).to_string(),
        row.missing.to_string(),
        format!("{}/{}", row.good, row.wanted),
        human::duration(row.since_ms),
        row.state.clone(),
        if row.source.is_empty() && row.target.is_empty() {
            none()
        } else {
            format!("{} → {}", address(&row.source), address(&row.target))
        },
        format!("{}/{}", human::size(row.bytes_done, true), human::size(row.bytes_total, true)),
        if row.next_attempt_ms > 0 { human::duration(row.next_attempt_ms) } else { none() },
        end,
        if row.path.is_empty() { none() } else { row.path.clone() },
        row.reason.clone(),
    ]
}

fn totals(reply: &RepairsReply) -> Vec<String> {
    let mut lines = Vec::new();
    let unfit = reply.total.saturating_sub(reply.kept);
    if reply.total == 0 {
        lines.push("every chunk is as it should be".into());
    } else if unfit == 0 {
        lines.push("every chunk has all it wants".into());
    } else {
        let of = |missing: usize, count: u64| if missing == 0 { count.saturating_sub(reply.kept) } else { count };
        let counts = reply.by_missing.iter().enumerate().map(|(missing, count)| (missing, of(missing, *count)));
        let counts: Vec<(usize, u64)> = counts.collect();
        let counts = counts.into_iter().rev().filter(|(_, count)| *count > 0);
        let counts: Vec<String> = counts
            .map(|(missing, count)| match missing {
                0 => format!("{count} miss none and are listed for another reason"),
                1 => format!("{count} miss 1 replica"),
                _ => format!("{count} miss {missing} replicas"),
            })
            .collect();
        lines.push(format!("{unfit} chunks are not as they should be: {}", counts.join(", ")));
        let rate = match reply.bytes_per_second {
            0 => String::new(),
            rate => format!(" at {}/s", human::size(rate, true)),
        };
        let (left, end) = (human::size(reply.bytes_left, true), human::end(reply.eta_known, reply.eta_ms));
        let because = if reply.eta_known { "assuming " } else { "" };
        lines.push(format!("{left} left to copy{rate}: {end}, {because}{}", reply.assumes));
    }
    if reply.kept > 0 {
        lines.push(format!(
            "{} chunks that have all they want keep a replica that failed a check for a while, as evidence; \
             `quarantine-keep` (`quarry settings`) says how long",
            reply.kept
        ));
    }
    if !reply.incomplete.is_empty() {
        lines.push(format!("there may be more: {}", reply.incomplete));
    }
    if !reply.brake.is_empty() {
        lines.push(format!("the brake holds: {}; `quarry repairs --release-brake` ends it", reply.brake));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copying() -> RepairRow {
        RepairRow {
            chunk: 9,
            path: "/a".into(),
            missing: 2,
            since_ms: 90_000,
            state: "copying".into(),
            source: vec![1; 16].into(),
            target: vec![2; 16].into(),
            bytes_done: 512,
            bytes_total: 1024,
            good: 1,
            wanted: 3,
            ..Default::default()
        }
    }

    fn reply() -> RepairsReply {
        let waiting = RepairRow { next_attempt_ms: 5000, eta_ms: 7000, eta_known: true, ..Default::default() };
        RepairsReply {
            repairs: vec![copying(), waiting],
            total: 5,
            bytes_left: 2048,
            assumes: "there is no rate".into(),
            by_missing: vec![1, 0, 4],
            ..Default::default()
        }
    }

    #[test]
    fn repairs_have_the_names_of_the_contract() {
        let value = json_of(&reply());
        let row = &value["repairs"][0];
        let names = ["chunk", "path", "missing", "since_ms", "state", "reason", "bytes_done", "bytes_total"];
        names.iter().for_each(|name| assert!(!row[name].is_null(), "{name}"));
        assert_eq!(
            (row["chunk"].as_u64(), row["source"].as_str()),
            (Some(9), Some("01010101-0101-0101-0101-010101010101"))
        );
        // Unknown and none are null, never a made-up number.
        assert_eq!(
            (&row["eta_ms"], &row["next_attempt_ms"], &value["eta_ms"]),
            (&Value::Null, &Value::Null, &Value::Null)
        );
        assert!(row.get("eta_ms").is_some() && row.get("next_attempt_ms").is_some());
        let row = &value["repairs"][1];
        assert_eq!((&row["source"], &row["target"]), (&Value::Null, &Value::Null));
        assert_eq!((row["eta_ms"].as_u64(), row["next_attempt_ms"].as_u64()), (Some(7000), Some(5000)));
    }

    #[test]
    fn a_table_names_servers_by_address_and_says_what_is_unknown() {
        let addresses = Addresses::from([(Bytes::from(vec![1; 16]), "h:1".to_string())]);
        let lines = lines(&reply(), Some(&addresses));
        assert!(lines[1].contains("h:1 → 02020202-"), "{}", lines[1]);
        assert!(lines[1].contains("1/3") && lines[1].contains("512/1.0K") && lines[1].contains("unknown"));
        assert_eq!(lines[3], "… and 3 more");
        assert_eq!(
            lines[5..],
            [
                "5 chunks are not as they should be: 4 miss 2 replicas, 1 miss none and are listed for another reason",
                "2.0K left to copy: when it will be done is unknown, there is no rate",
            ]
        );
    }

    #[test]
    fn kept_evidence_is_told_apart_and_nobody_watches_it() {
        let kept = RepairsReply { total: 2, kept: 2, by_missing: vec![2], eta_known: true, ..Default::default() };
        let said = totals(&kept);
        assert_eq!((said.len(), said[0].as_str()), (2, "every chunk has all it wants"));
        assert!(said[1].starts_with("2 chunks that have all they want keep") && is_all_done(&kept), "{said:?}");
        let more = RepairsReply { total: 4, by_missing: vec![3, 1], ..kept };
        let said = totals(&more);
        let unfit =
            "2 chunks are not as they should be: 1 miss 1 replica, 1 miss none and are listed for another reason";
        assert!(said[0] == unfit && said.last().unwrap().contains("keep a replica") && !is_all_done(&more), "{said:?}");
        let unknown = RepairsReply { total: 0, incomplete: "new".into(), ..Default::default() };
        assert!(!is_all_done(&unknown) && is_all_done(&RepairsReply::default()));
    }

    #[test]
    fn totals_say_what_is_assumed_what_holds_and_what_is_not_counted_yet() {
        let known = RepairsReply { eta_known: true, eta_ms: 60_000, bytes_per_second: 1024, ..reply() };
        assert_eq!(totals(&known)[1], "2.0K left to copy at 1.0K/s: done in about 1m00s, assuming there is no rate");
        let quiet = RepairsReply { eta_known: true, ..Default::default() };
        assert_eq!(totals(&quiet), ["every chunk is as it should be"]);
        let held = RepairsReply { incomplete: "new".into(), brake: "many went".into(), ..quiet };
        assert_eq!(totals(&held)[1], "there may be more: new");
        assert!(totals(&held)[2].starts_with("the brake holds: many went; `quarry repairs --release-brake`"));
    }
}
