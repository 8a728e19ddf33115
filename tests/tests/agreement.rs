//! Masters compare what they hold: three that hold the same say so, and one whose database was changed behind its back is
//! named, with what to do about it.

use std::time::Duration;

use quarry_env::{Batch, KvFactory as _, KvOptions, Recovery, Space, SyncPoint};
use quarry_env_rocks::Rocks;
use quarry_tests::{Cluster, Options, group, wait};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

fn compare(cluster: &Cluster) -> (i32, Value, String) {
    let out = cluster.quarry(&["masters", "compare", "--json"]);
    (out.code, serde_json::from_slice(&out.stdout).unwrap_or_default(), out.stderr)
}

fn findings(shown: &Value) -> Vec<String> {
    let masters = shown["masters"].as_array().cloned().unwrap_or_default();
    masters.iter().map(|m| format!("m{} {}", m["id"], m["agreement"].as_str().unwrap_or_default())).collect()
}

fn alarms(cluster: &Cluster) -> Vec<String> {
    let status = cluster.status();
    let notices = status["notices"].as_array().cloned().unwrap_or_default();
    notices.iter().filter_map(Value::as_str).filter(|notice| notice.contains("ALARM")).map(String::from).collect()
}

/// Changes one byte of one file's metadata, as RocksDB itself would write it: every checksum fits.
fn alter(data: &std::path::Path) {
    let space = Space("inode");
    let options = KvOptions { recovery: Recovery::Prefix, ..KvOptions::default() };
    let kv = Rocks.open(&group::state_dir(data), &[space], options).expect("the state of a stopped master opens");
    let (key, mut value) = kv.last(space).expect("a read").expect("a file");
    // The lowest bit of a length, time or id: it still decodes.
    let last = value.last_mut().expect("a row has bytes");
    *last ^= 1;
    let mut batch = Batch::default();
    batch.put(space, key, value);
    kv.write(batch, Some(SyncPoint("test"))).expect("a write");
}

#[test]
fn masters_that_hold_the_same_agree_and_one_that_was_altered_is_named_and_replaced() {
    let mut cluster = Cluster::start(&Options { masters: 3, ..Options::default() });
    for n in 0..5 {
        cluster.put(&format!("/f{n}"), &[], b"some bytes");
    }
    let (code, shown, error) = compare(&cluster);
    assert_eq!(
        (code, findings(&shown)),
        (0, ["m1 agrees", "m2 agrees", "m3 agrees"].map(String::from).to_vec()),
        "{error}"
    );
    assert!(shown["compared"]["index"].as_u64() > Some(0), "{shown}");
    assert_eq!(alarms(&cluster), [""; 0]);
    // One that cannot answer is no difference.
    let third = cluster.others[1].address.clone();
    group::at(&mut cluster, &third).kill();
    let (code, shown, error) = compare(&cluster);
    assert_eq!(
        (code, findings(&shown)),
        (0, ["m1 agrees", "m2 agrees", "m3 unknown"].map(String::from).to_vec()),
        "{error}"
    );
    assert_eq!(alarms(&cluster), [""; 0]);
    alter(&cluster.others[1].data.clone());
    group::at(&mut cluster, &third).restart();
    group::wait_whole(&cluster, 3);
    let (code, shown, error) = compare(&cluster);
    assert_eq!(findings(&shown), ["m1 agrees", "m2 agrees", "m3 differs"], "{error}");
    assert!(code != 0 && error.contains("m3") && error.contains("quarry status"), "{error}");
    let said = alarms(&cluster);
    assert!(said.len() == 1 && said[0].contains("m3") && said[0].contains("masters remove m3"), "{said:?}");
    let first = cluster.master.log();
    assert!(first.lines().any(|line| line.contains("ERROR") && line.contains("DO NOT HOLD THE SAME")), "it is logged");
    // The remedy, literally.
    group::replace(&mut cluster, &third);
    let (code, shown, error) = compare(&cluster);
    assert_eq!(
        (code, findings(&shown)),
        (0, ["m1 agrees", "m2 agrees", "m4 agrees"].map(String::from).to_vec()),
        "{error}"
    );
    assert_eq!(alarms(&cluster), [""; 0]);
    for n in 0..5 {
        assert_eq!(cluster.quarry(&["cat", &format!("/f{n}")]).ok(), b"some bytes");
    }
}

#[test]
fn masters_compare_by_themselves_and_the_leader_may_be_the_one_that_differs() {
    let mut cluster = Cluster::start(&Options { masters: 3, ..Options::default() });
    cluster.put("/f", &[], b"some bytes");
    cluster.set(&["compare-interval=1s"]);
    let compared = |cluster: &Cluster| group::shown(cluster)["compared"]["index"].as_u64();
    let before = wait::until("a comparison", LIMIT, || compared(&cluster).ok_or_else(String::new));
    wait::until("another one", LIMIT, || match compared(&cluster) {
        Some(index) if index > before => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let leads = group::leader(&cluster);
    let number = group::number(&cluster, &leads);
    let data = group::at(&mut cluster, &leads).data.clone();
    group::at(&mut cluster, &leads).kill();
    alter(&data);
    group::at(&mut cluster, &leads).restart();
    group::wait_whole(&cluster, 3);
    cluster.quarry(&["masters", "transfer-leader", &leads]).ok();
    let said = wait::until("the leader to find itself wrong", LIMIT, || {
        let said = alarms(&cluster);
        if said.is_empty() { Err(group::shown(&cluster).to_string()) } else { Ok(said) }
    });
    let names = format!("master m{number} ");
    assert!(said.len() == 1 && said[0].contains(&names) && said[0].contains("step-down"), "{said:?}");
}
