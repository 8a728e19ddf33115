use super::*;

const GOOD: &str = r#"
question = "?"
[run]
for = "1h"
[cluster]
racks = 3
servers = 6
disk = "1TB"
[data]
chunks = 100
chunk = "64MiB"
[settings]
repair-rate = "10MB/s"
repair-in = 3
[[event]]
at = "1m"
do = "crash"
target = "server:5"
"#;

#[test]
fn a_scenario_is_read_with_its_settings() {
    let scenario = Scenario::parse("s.toml", GOOD).unwrap();
    assert_eq!(scenario.settings().get(&quarry_master_core::settings::REPAIR_RATE), 10_000_000);
    assert_eq!(scenario.settings().get(&quarry_master_core::settings::REPAIR_IN), 3);
    assert_eq!((scenario.events().count(), scenario.data.replicas, scenario.cluster.disks), (1, 3, 4));
}

#[test]
fn what_is_wrong_is_named_with_line_key_and_remedy() {
    for (from, to, parts) in [
        ("racks = 3", "rakcs = 3", &["s.toml:6", "cluster.rakcs", "unknown field", "use one of", "`racks`"][..]),
        ("racks = 3", "", &["s.toml:5", "cluster", "missing field `racks`", "add it"]),
        ("\"64MiB\"", "\"64 miles\"", &["s.toml:11", "data.chunk", "64 miles", "like \"64MiB\""]),
        ("\"64MiB\"", "\"65MiB\"", &["s.toml:11", "data.chunk", "choose 1 to 67108864"]),
        ("racks = 3", "racks = 7", &["s.toml:6", "cluster.racks", "choose 1 to 6"]),
        ("racks = 3", "racks = three", &["s.toml:6", "no TOML"]),
        ("\"10MB/s\"", "\"10 parsecs\"", &["s.toml:13", "settings.repair-rate", "choose 100kB/s"]),
        ("repair-rate", "repair-speed", &["s.toml:13", "settings.repair-speed", "no setting", "quarry settings"]),
        ("server:5", "server:6", &["s.toml:18", "event[0].target", "there is no server:6", "0 to 5"]),
        ("server:5", "shelf:5", &["s.toml:18", "event[0].target", "shelf:5", "use server:NAME", "rack:NAME"]),
        ("server:5", "disk:1/0", &["s.toml:18", "does not act on disk:1/0", "use server:NUMBER"]),
        ("\"crash\"", "\"slow\"", &["event[0].factor", "needs it", "add it"]),
        ("\"crash\"", "\"explode\"", &["s.toml:17", "event[0].do", "explode"]),
        ("at = \"1m\"", "at = \"1m\"\nup = \"1s\"", &["event[0].up", "leave it out"]),
        ("chunks = 100", "chunks = 100_000_000", &["s.toml:10", "data.chunks", "do not fit"]),
        (
            "[run]",
            "[faults.crash]\nevery = \"0s\"\nlasts = \"1s\"\n[run]",
            &["s.toml:3", "faults.crash", "cannot be zero"],
        ),
        ("[run]", "[model]\nscrub-period = \"0s\"\n[run]", &["s.toml:4", "model.scrub-period", "cannot be zero"]),
        ("\"1m\"", "\"2h\"", &["s.toml:15", "event[0].at", "over after 1 h", "earlier"]),
        (
            "[run]",
            "[workload]\nwrites = \"1PB/s\"\n[run]",
            &["s.toml:4", "workload.writes", "times in 1 h", "write less"],
        ),
        (
            "[run]",
            "[faults]\ncrash = { every = \"1us\", lasts = \"1s\" }\n[run]",
            &["s.toml:4", "faults.crash", "21600000000 times", "longer `every`"],
        ),
        (
            "[[event]]",
            "[[together]]\na = 0\nb = 1\nchunks = 101\n[[event]]",
            &["s.toml:18", "together.chunks", "101 chunks", "at most data.chunks"],
        ),
        ("do = \"crash\"", "do = \"restart\"", &["event[0].lasts", "needs it", "add it"]),
        ("do = \"crash\"", "do = \"slow\"\nfactor = 1", &["event[0].factor", "choose 2 to 1000"]),
        (
            "do = \"crash\"",
            "do = \"flap\"\nup = \"1us\"\ndown = \"1us\"\nlasts = \"30m\"",
            &["event[0].up", "900000000 times", "longer"],
        ),
        (
            "[run]",
            "[faults]\nflapping = { every = \"1h\", lasts = \"1h\", up = \"1us\", down = \"1us\" }\n[run]",
            &["s.toml:4", "faults.flapping", "10800000000 times"],
        ),
        (
            "[[event]]",
            "[[together]]\na = 0\nb = 3\nchunks = 1\n[[event]]",
            &["s.toml:17", "together.b", "are on one rack"],
        ),
        (
            "[[event]]",
            "[[together]]\na = 0\nb = 1\nchunks = 1\n[[together]]\na = 2\nb = 0\nchunks = 1\n[[event]]",
            &["together.a", "stands in two pairs"],
        ),
        ("repair-in = 3", "default-replicas = 2", &["s.toml:14", "settings.default-replicas", "use data.replicas"]),
        ("server:5", "server:05", &["s.toml:18", "event[0].target", "there is no server:05"]),
        ("[run]", "[faults]\ncrash = { every = \"0s\", lasts = \"1s\" }\n[run]", &["faults.crash", "cannot be zero"]),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let error = Scenario::parse("s.toml", &GOOD.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error} lacks one of {parts:?}");
    }
}

#[test]
fn values_vary_by_the_files_keys_and_by_short_ones() {
    let vary: Vary = "repair.bandwidth=20MB,30MB".parse().unwrap();
    let varied = vary.apply("s.toml", GOOD, &vary.values[1]).unwrap();
    assert_eq!(varied.settings().get(&quarry_master_core::settings::REPAIR_RATE), 30_000_000);
    let vary: Vary = "data.replicas=2,9".parse().unwrap();
    assert_eq!(vary.apply("s.toml", GOOD, "2").unwrap().data.replicas, 2);
    let error = vary.apply("s.toml", GOOD, "9").unwrap_err().to_string();
    assert!(error.contains("--vary data.replicas=9") && error.contains("choose 1 to 6"), "{error}");
    let vary: Vary = "faults.power-outage.lost=0.5".parse().unwrap();
    let text = format!("{GOOD}[faults.power-outage]\nevery = \"1d\"\nlasts = \"1m\"\n");
    assert_eq!(vary.apply("s.toml", &text, "0.5").unwrap().faults.power_outage.map(|power| power.lost), Some(0.5));
    assert!("run.seed=1,2".parse::<Vary>().unwrap_err().to_string().contains("--seeds"));
    assert!("data.replicas".parse::<Vary>().unwrap_err().to_string().contains("KEY=VALUE"));
    let vary: Vary = "question.x=1".parse().unwrap();
    assert!(vary.apply("s.toml", GOOD, "1").unwrap_err().to_string().contains("question is no table"));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC*", cut in 0usize..300) {
        let _error = Scenario::parse("s.toml", &text);
        let cut = GOOD.char_indices().map(|(at, _)| at).nth(cut).unwrap_or(0);
        let _error = Scenario::parse("s.toml", &format!("{}{text}{}", &GOOD[..cut], &GOOD[cut..]));
    }
}
