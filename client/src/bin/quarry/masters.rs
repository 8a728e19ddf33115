//! `quarry masters`.

use quarry_client::Client;
use quarry_proto::v1::{MasterStatus, MastersReply};
use quarry_types::ErrorCode;
use serde_json::json;

use crate::{
    args::MastersVerb,
    context::Context,
    error::{CliError, Outcome},
    human, info,
    output::Out,
    progress::{GoesOn, LOOK_EVERY},
};

/// What a master that is to vote may lag behind; the leader has the last word.
const CAUGHT_UP: u64 = 100;
/// The word for a member that does not vote.
pub const LEARNER: &str = "learner";

/// Shows or changes the group of masters.
pub async fn run(context: &Context, verb: Option<MastersVerb>) -> Outcome {
    let client = context.client().await?;
    let (reply, done) = match verb {
        None | Some(MastersVerb::Status) => (look(context, client).await?, None),
        Some(MastersVerb::Add { addresses, learner }) => add(context, client, &addresses, learner).await?,
        Some(MastersVerb::Promote { members }) => {
            let known = look(context, client).await?.masters;
            let ids = members.iter().map(|text| find(&known, text)).collect::<Outcome<Vec<u64>>>()?;
            (promote(context, client, &ids).await?, Some(format!("{} vote", names(&ids))))
        }
        Some(MastersVerb::Remove { master }) => {
            let id = find(&look(context, client).await?.masters, &master)?;
            (client.remove_master(id).await?, Some(format!("m{id} is no master of this cluster any more; stop it")))
        }
        Some(MastersVerb::TransferLeader { to }) => {
            let id = find(&look(context, client).await?.masters, &to)?;
            (client.transfer_leader(id).await?, Some(format!("m{id} leads")))
        }
        Some(MastersVerb::StepDown) => {
            // By its number: a call that is made again, to whoever leads by then, must not hand over once more.
            let id = successor(&look(context, client).await?)?;
            (client.transfer_leader(id).await?, Some(format!("m{id} leads")))
        }
        Some(MastersVerb::Compare) => return compare(context, client).await,
        Some(MastersVerb::Upgrade { to }) => {
            let reply = client.upgrade_masters(to).await?;
            let done = format!("feature level {} is in force", reply.feature_level);
            (reply, Some(done))
        }
    };
    tell(context, &reply, done).await
}

/// The masters as the leader sees them; without a leader, or when it cannot be reached, as any master does.
async fn look(context: &Context, client: &Client) -> Outcome<MastersReply> {
    let reply = client.masters().await?;
    let leader = reply.masters.iter().find(|m| m.id == reply.leader && m.id != reply.answered);
    let Some(leader) = leader else { return Ok(reply) };
    let asked = async {
        let client = context.client_of(vec![leader.address.clone()], context.global.timeout.min(LEADER_WAIT)).await?;
        Ok::<_, CliError>(client.masters().await?)
    };
    Ok(asked.await.unwrap_or(reply))
}

/// A leader that does not answer within this is asked no longer.
const LEADER_WAIT: std::time::Duration = std::time::Duration::from_secs(3);

/// Takes the masters at these addresses into the group, and unless `learner` lets them vote.
pub async fn add(
    context: &Context,
    client: &Client,
    addresses: &[String],
    learner: bool,
) -> Outcome<(MastersReply, Option<String>)> {
    let (mut ids, mut reply) = (Vec::new(), MastersReply::default());
    for address in addresses {
        reply = client.add_master(address).await?;
        context.notes.verbose(format!("m{} at {address} is in the group", reply.subject));
        ids.push(reply.subject);
    }
    if learner {
        return Ok((reply, Some(format!("{}: in the group, without a vote", names(&ids)))));
    }
    let again = format!("who does not vote yet stays a learner: `quarry masters add {}` goes on", addresses.join(" "));
    let goes_on = GoesOn::new(&context.notes, again);
    let reply = promote(context, client, &ids).await?;
    goes_on.ended();
    Ok((reply, Some(format!("{} vote", names(&ids)))))
}

/// Waits until these masters have caught up, as long as they come closer, and lets them vote.
async fn promote(context: &Context, client: &Client, ids: &[u64]) -> Outcome<MastersReply> {
    let (mut least, mut moved) = (u64::MAX, context.world.clock.now());
    loop {
        let reply = client.masters().await?;
        let end = reply.masters.iter().map(|m| m.last_log).max().unwrap_or_default();
        let waits = |m: &&MasterStatus| ids.contains(&m.id) && m.role == LEARNER;
        let lag = |m: &MasterStatus| if m.reachable { end.saturating_sub(m.applied) } else { u64::MAX };
        let last = reply.masters.iter().filter(waits).max_by_key(|m| lag(m));
        let Some(last) = last.filter(|m| lag(m) > CAUGHT_UP) else {
            return Ok(client.promote_masters(ids).await?);
        };
        let how = if last.reachable { format!("{} entries behind", lag(last)) } else { "not reachable".into() };
        if lag(last) < least {
            (least, moved) = (lag(last), context.world.clock.now());
            context.notes.verbose(format!("m{} ({}): {how}", last.id, last.address));
        } else if context.world.clock.now().since(moved) >= context.global.timeout {
            let why = format!("m{} ({}) does not catch up: {how}", last.id, last.address);
            return Err(CliError::new(ErrorCode::Unavailable, why)
                .hint("look at its log, or `quarry masters remove` it; without a vote it holds up nobody"));
        }
        context.world.clock.sleep(LOOK_EVERY).await;
    }
}

/// Has the masters compare what they hold, waits for the outcome and shows it.
async fn compare(context: &Context, client: &Client) -> Outcome {
    let wanted = client.compare_masters().await?;
    let began = context.world.clock.now();
    let reply = loop {
        let reply = look(context, client).await?;
        if reply.comparisons >= wanted {
            break reply;
        }
        if context.world.clock.now().since(began) >= context.global.timeout {
            let why = "the masters have not finished comparing yet";
            return Err(CliError::new(ErrorCode::DeadlineExceeded, why)
                .hint("a large state takes a while: look at `quarry masters` later, or wait longer with --timeout"));
        }
        context.world.clock.sleep(LOOK_EVERY).await;
    };
    tell(context, &reply, None).await?;
    let wrong: Vec<u64> = reply.masters.iter().filter(|m| is_alarm(m)).map(|m| m.id).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(CliError::new(ErrorCode::Corrupt, format!("the masters do not hold the same: {}", names(&wrong)))
        .hint("`quarry status` says what to do"))
}

fn is_alarm(master: &MasterStatus) -> bool {
    matches!(master.agreement.as_str(), "differs" | "disputed")
}

/// What the last comparison of states found, in words.
fn agreement(reply: &MastersReply) -> Option<String> {
    if reply.comparisons == 0 {
        return None;
    }
    let ago = quarry_types::duration::show(std::time::Duration::from_millis(reply.compared_ms_ago / 1000 * 1000));
    let named = |word: &str| {
        let ids: Vec<u64> = reply.masters.iter().filter(|m| m.agreement == word).map(|m| m.id).collect();
        (!ids.is_empty()).then(|| format!("{}: {word}", names(&ids)))
    };
    let found: Vec<String> =
        ["differs", "disputed", "agrees", "unknown"].iter().filter_map(|word| named(word)).collect();
    Some(format!("states compared {ago} ago at log entry {}: {}", reply.compared_index, found.join("; ")))
}

/// The master that the user means: `m2`, `2` or its address.
fn find(masters: &[MasterStatus], text: &str) -> Outcome<u64> {
    let number = text.strip_prefix('m').unwrap_or(text).parse().ok();
    let meant = masters.iter().find(|m| Some(m.id) == number || m.address == text);
    meant.map(|m| m.id).ok_or_else(|| {
        CliError::new(ErrorCode::NotFound, format!("no master {text}"))
            .hint("`quarry masters status` lists them; name one as m2, or by its address")
    })
}

/// Of those that vote, answer and do not lead, the one that has most of the log.
fn successor(reply: &MastersReply) -> Outcome<u64> {
    let others = reply.masters.iter().filter(|m| m.id != reply.leader && m.role != LEARNER && m.reachable);
    others.max_by_key(|m| m.last_log).map(|m| m.id).ok_or_else(|| {
        CliError::new(ErrorCode::Conflict, "no other master that votes is reachable: nobody could take the leadership")
    })
}

fn names(ids: &[u64]) -> String {
    ids.iter().map(|id| format!("m{id}")).collect::<Vec<_>>().join(", ")
}

async fn tell(context: &Context, reply: &MastersReply, done: Option<String>) -> Outcome {
    let mut out = Out::new();
    if context.global.json {
        let masters: Vec<_> = reply.masters.iter().map(info::master).collect();
        let compared =
            (reply.comparisons > 0).then(|| json!({ "index": reply.compared_index, "ms_ago": reply.compared_ms_ago }));
        let shown = json!({ "masters": masters, "feature_level": reply.feature_level, "compared": compared });
        out.json(&shown).await?;
        return out.flush().await;
    }
    match done {
        Some(done) => out.line(done).await?,
        None => {
            for line in lines(reply) {
                out.line(line).await?;
            }
        }
    }
    out.flush().await
}

/// The masters as a table.
pub fn table(masters: &[MasterStatus]) -> Vec<String> {
    let row = |m: &MasterStatus| {
        let reachable = if m.reachable { "yes" } else { "no" };
        let numbers = [m.term, m.last_log, m.applied].map(|number| number.to_string());
        let mut row = vec![format!("m{}", m.id), m.address.clone(), m.role.clone()];
        row.extend(numbers);
        row.push(reachable.into());
        row
    };
    let rows: Vec<Vec<String>> = masters.iter().map(row).collect();
    let heads = ["MASTER", "ADDRESS", "ROLE", "TERM", "LAST LOG", "APPLIED", "REACHABLE"];
    human::table(&heads, &["TERM", "LAST LOG", "APPLIED"], &rows)
}

fn lines(reply: &MastersReply) -> Vec<String> {
    let mut lines = table(&reply.masters);
    if reply.feature_level > 0 {
        let known = reply.masters.iter().map(|m| m.highest_level).filter(|level| *level > 0).min().unwrap_or_default();
        let more =
            if known > reply.feature_level { format!(", and all that answer know {known}") } else { String::new() };
        lines.push(format!("feature level {} is in force{more}", reply.feature_level));
    }
    lines.extend(agreement(reply));
    let full = reply.masters.iter().filter(|m| m.disk_full);
    lines.extend(full.map(|m| format!("the disk of m{} ({}) is full: free some room there", m.id, m.address)));
    let voters = reply.masters.iter().filter(|m| m.role != LEARNER);
    let (all, reachable) = (voters.clone().count(), voters.filter(|m| m.reachable).count());
    lines.push(match (reply.leader, all) {
        (0, _) => {
            format!("nobody leads, as far as m{} knows; {} of {all} must reach each other", reply.answered, all / 2 + 1)
        }
        (_, 1) => "one master votes: without it nothing goes on".into(),
        _ => {
            let spare = reachable.saturating_sub(all / 2 + 1);
            let word = if spare == 1 { "master" } else { "masters" };
            format!("{reachable} of {all} that vote answer: {spare} {word} may fail now")
        }
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(id: u64, role: &str, reachable: bool) -> MasterStatus {
        let address = format!("h{id}:9400");
        MasterStatus { id, address, role: role.into(), reachable, ..MasterStatus::default() }
    }

    #[test]
    fn masters_are_named_by_number_or_address() {
        let all = [master(1, "leader", true), master(12, "learner", true)];
        for text in ["m12", "12", "h12:9400"] {
            assert_eq!(find(&all, text).unwrap(), 12, "{text}");
        }
        for text in ["m2", "", "m", "h2:9400", "-1"] {
            assert!(find(&all, text).is_err(), "{text}");
        }
    }

    #[test]
    fn whoever_steps_down_names_its_successor() {
        let ahead = |id, last_log| MasterStatus { last_log, ..master(id, "follower", true) };
        let all = vec![master(1, "leader", true), ahead(2, 7), ahead(3, 8), master(4, "learner", true)];
        assert_eq!(successor(&MastersReply { masters: all, leader: 1, ..Default::default() }).unwrap(), 3);
        let alone = vec![master(1, "leader", true), master(2, "follower", false)];
        assert!(successor(&MastersReply { masters: alone, leader: 1, ..Default::default() }).is_err());
    }

    #[test]
    fn it_says_how_many_may_fail() {
        let last = |masters: Vec<MasterStatus>, leader| {
            lines(&MastersReply { masters, leader, answered: 1, ..Default::default() }).pop().unwrap()
        };
        let three = |third| vec![master(1, "leader", true), master(2, "follower", true), master(3, "follower", third)];
        assert_eq!(last(three(true), 1), "3 of 3 that vote answer: 1 master may fail now");
        assert_eq!(last(three(false), 1), "2 of 3 that vote answer: 0 masters may fail now");
        assert_eq!(last(vec![master(1, "leader", true)], 1), "one master votes: without it nothing goes on");
        assert!(last(three(true), 0).starts_with("nobody leads, as far as m1 knows; 2 of 3"));
    }
}
