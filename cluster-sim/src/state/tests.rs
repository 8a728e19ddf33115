use super::*;
use crate::{
    scenario::{Act, EventSpec, Model, Target, Workload},
    units::{SECOND, Time},
};

/// The bytes of version 1, as they were first written.
const GOLDEN: &str = include_str!("golden-v1.json");

#[test]
fn yesterdays_bytes_are_read_and_written_the_same() {
    let state = State::parse("golden", GOLDEN).unwrap();
    assert_eq!((state.servers.len(), state.chunks.len()), (3, 2));
    assert_eq!((state.chunks[1].on.as_slice(), state.chunks[1].bad.as_slice()), (&[0, 2][..], &[2][..]));
    assert_eq!(serde_json::to_string_pretty(&state).unwrap() + "\n", GOLDEN);
}

#[test]
fn what_is_wrong_is_named_with_line_key_and_remedy() {
    let wrong = |from: &str, to: &str| {
        assert!(GOLDEN.contains(from), "{from}");
        State::parse("s.json", &GOLDEN.replacen(from, to, 1)).unwrap_err().to_string()
    };
    for (from, to, parts) in [
        ("\"rack\"", "\"rcak\"", &["s.json:11", "servers[0].rcak", "unknown field", "export the state again"][..]),
        ("\"version\": 1", "\"version\": 2", &["version 2", "version 1 is wanted", "the release"]),
        ("quarry-state", "else", &["\"else\"", "quarry-state of version 1"]),
        ("\"wish\": \"active\"", "\"wish\": \"gone\"", &["servers[0].wish", "gone"]),
        ("\"on\": [\n        0,\n        1", "\"on\": [\n        0,\n        9", &["chunks[0].on", "0 to 2"]),
        ("\"id\": 8", "\"id\": 7", &["chunks[1].id", "not ascending"]),
        ("\"10s\"", "\"10 parsecs\"", &["settings.repair-delay", "10 parsecs"]),
        ("67108864", "67108865", &["chunks[0].bytes"]),
    ] {
        let error = wrong(from, to);
        assert!(parts.iter().all(|part| error.contains(part)), "{error} lacks one of {parts:?}");
    }
    assert!(State::parse("s.json", "").unwrap_err().to_string().contains("s.json:1"));
    assert!(State::parse("s.json", &(GOLDEN.to_owned() + "x")).is_err());
}

fn question(target: Target) -> Question {
    Question {
        model: Model::default(),
        workload: Workload::default(),
        settings: vec![("repair-delay".into(), "0s".into())],
        replicas: None,
        events: vec![EventSpec::new(Time(10 * SECOND), Act::Lose, target, None)],
        lasts: 3600 * SECOND,
        seed: 1,
    }
}

#[test]
fn what_if_begins_with_what_is_wrong_already_and_repairs_it() {
    let mut world =
        State::parse("golden", GOLDEN).unwrap().world(question(Target::Server("10.0.0.2:9410".into()))).unwrap();
    assert_eq!(world.measures.truth.endangered.count(), 1, "one replica of chunk 8 is bad");
    world.run();
    assert_eq!((world.measures.truth.lost, world.measures.truth.endangered.count()), (0, 0));
    assert!(world.measures.copies >= 1, "{}", world.measures.copies);
}

#[test]
fn a_target_that_is_not_there_is_refused_with_what_is() {
    let error = State::parse("golden", GOLDEN).unwrap().world(question(Target::Rack("r9".into()))).err().unwrap();
    assert!(error.contains("rack:r9") && error.contains("racks r1, r2"), "{error}");
}
