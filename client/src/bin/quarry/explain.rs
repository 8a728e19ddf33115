//! `quarry explain`.

use quarry_proto::v1::{CandidateExplained, ExplainReply, RepairRow, Term};
use serde_json::{Value, json};

use crate::{
    args::Explain, context::Context, error::Outcome, human, info, output::Out, paths::Remote, repairs, servers,
};

/// Shows what would be decided now, and everything that it rests on.
pub async fn run(context: &Context, args: Explain) -> Outcome {
    let client = context.client().await?;
    let reply = match args {
        Explain::Chunk { chunk } => client.explain_chunk(chunk).await?,
        Explain::Server(args) => {
            let server = servers::find(client, &args.server).await?;
            client.explain_server(server.id).await?
        }
        Explain::Placement { remote } => client.explain_placement(&Remote::parse(&remote)?.path).await?,
    };
    let mut out = Out::new();
    if context.global.json {
        out.json(&json_of(&reply)).await?;
        return out.flush().await;
    }
    for line in lines(&reply, context.global.verbose) {
        out.line(line).await?;
    }
    out.flush().await
}

fn json_of(reply: &ExplainReply) -> Value {
    json!({
        "verdict": reply.verdict,
        "remedy": reply.remedy,
        "facts": reply.facts,
        "candidates": reply.candidates.iter().map(candidate_json).collect::<Vec<_>>(),
        "repair": reply.repair.as_ref().map(repairs::row_json),
    })
}

fn candidate_json(candidate: &CandidateExplained) -> Value {
    let filter = |term: &Term| json!({"name": term.name, "value": term.value, "passed": term.passed});
    let score =
        |term: &Term| json!({"name": term.name, "value": term.value, "weight": term.weight, "score": term.score});
    json!({
        "server": info::server_id(&candidate.server),
        "address": candidate.address,
        "rack": candidate.rack,
        "verdict": candidate.verdict,
        "chosen": candidate.chosen,
        "score": candidate.score,
        "filters": candidate.filters.iter().map(filter).collect::<Vec<_>>(),
        "scores": candidate.scores.iter().map(score).collect::<Vec<_>>(),
    })
}

fn lines(reply: &ExplainReply, verbose: bool) -> Vec<String> {
    let mut lines = vec![reply.verdict.clone()];
    if !reply.remedy.is_empty() {
        lines.push(format!("what helps: {}", reply.remedy));
    }
    lines.extend(reply.facts.iter().map(|fact| format!("  {fact}")));
    lines.extend(reply.repair.as_ref().map(ledger));
    if reply.candidates.is_empty() {
        return lines;
    }
    lines.push(String::new());
    let row =
        |c: &CandidateExplained| vec![c.address.clone(), c.rack.clone(), c.verdict.clone(), format!("{:.3}", c.score)];
    let rows: Vec<Vec<String>> = reply.candidates.iter().map(row).collect();
    lines.extend(human::table(&["CANDIDATE", "RACK", "VERDICT", "SCORE"], &["SCORE"], &rows));
    if verbose {
        lines.extend(reply.candidates.iter().flat_map(everything));
    }
    lines
}

fn ledger(row: &RepairRow) -> String {
    let reason = if row.reason.is_empty() { String::new() } else { format!(": {}", row.reason) };
    let next = match row.next_attempt_ms {
        0 => String::new(),
        ms => format!("; looked at again in {}", human::duration(ms)),
    };
    let (since, missing) = (human::duration(row.since_ms), row.missing);
    format!("  in the ledger for {since}, missing {missing}, {} attempts, {}{reason}{next}", row.attempts, row.state)
}

/// Every filter that was asked, and every term of the score.
fn everything(candidate: &CandidateExplained) -> Vec<String> {
    let filters = candidate.filters.iter().map(|filter| {
        let word = if filter.passed { "passes" } else { "RULED OUT BY" };
        vec![format!("  {word}"), filter.name.clone(), filter.value.clone(), String::new()]
    });
    let scores = candidate.scores.iter().map(|term| {
        // A term without weight adds nothing, whatever its value.
        let value = if term.weight > 0.0 { term.score / term.weight } else { 0.0 };
        let sum = format!("{:.2} × {value:.3} = {:.3}", term.weight, term.score);
        vec!["  term".into(), term.name.clone(), term.value.clone(), sum]
    });
    let head = format!("{} (rack {}, {})", candidate.address, candidate.rack, info::server_id(&candidate.server));
    let rows: Vec<Vec<String>> = filters.chain(scores).collect();
    let table = human::table(&["  WHAT", "NAME", "FIGURE", "WEIGHT × VALUE"], &[], &rows);
    [String::new(), head].into_iter().chain(table).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply() -> ExplainReply {
        let filter =
            |name: &str, passed| Term { name: name.into(), value: "5 left".into(), passed, ..Default::default() };
        let term = Term { name: "load".into(), value: "3 writes".into(), passed: true, score: 0.15, weight: 0.3 };
        ExplainReply {
            verdict: "wait: nobody can take it".into(),
            remedy: "add a chunkserver".into(),
            facts: vec!["file /a".into()],
            candidates: vec![CandidateExplained {
                server: vec![1; 16].into(),
                address: "h:1".into(),
                rack: "r1".into(),
                filters: vec![filter("alive", true), filter("room", false)],
                scores: vec![term, Term { name: "affinity".into(), ..Default::default() }],
                score: 0.15,
                verdict: "ruled out by `room`".into(),
                chosen: false,
            }],
            repair: Some(RepairRow {
                state: "blocked".into(),
                reason: "full".into(),
                missing: 1,
                ..Default::default()
            }),
        }
    }

    #[test]
    fn the_verdict_comes_first_and_then_what_helps() {
        let lines = lines(&reply(), false);
        assert_eq!(lines[..3], ["wait: nobody can take it", "what helps: add a chunkserver", "  file /a"]);
        assert_eq!(lines[3], "  in the ledger for 0s, missing 1, 0 attempts, blocked: full");
        assert_eq!(
            lines[5..],
            ["CANDIDATE  RACK  VERDICT              SCORE", "h:1        r1    ruled out by `room`  0.150"]
        );
    }

    #[test]
    fn verbose_shows_every_filter_and_every_term() {
        let text = lines(&reply(), true).join("\n");
        assert!(text.contains("h:1 (rack r1, 01010101-"), "{text}");
        for (what, name) in [("passes", "alive"), ("RULED OUT BY", "room"), ("term", "load"), ("term", "affinity")] {
            assert!(
                text.lines().any(|line| line.trim_start().starts_with(what) && line.contains(name)),
                "{name}: {text}"
            );
        }
        assert!(text.contains("0.30 × 0.500 = 0.150") && text.contains("0.00 × 0.000 = 0.000"), "{text}");
    }

    #[test]
    fn json_has_everything() {
        let value = json_of(&reply());
        let candidate = &value["candidates"][0];
        assert_eq!(candidate["filters"][1], json!({"name": "room", "value": "5 left", "passed": false}));
        assert_eq!(candidate["scores"][0], json!({"name": "load", "value": "3 writes", "weight": 0.3, "score": 0.15}));
        assert_eq!((value["repair"]["state"].as_str(), candidate["chosen"].as_bool()), (Some("blocked"), Some(false)));
        assert_eq!(json_of(&ExplainReply::default())["repair"], Value::Null);
    }
}
