//! Bugs that are planted on purpose: all are in the table, and none is in what is shipped.

#![allow(clippy::expect_used, clippy::panic, reason = "these are tests")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use quarry_chaos::planted::BUGS;

/// What a build with planted bugs has in it for each.
const MARKER: &str = "quarry-planted-bug:";

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn each_source(dir: &Path, take: &mut impl FnMut(&str)) {
    for entry in std::fs::read_dir(dir).expect("a directory of the clone") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("target") {
            each_source(&path, take);
        } else if path.extension().is_some_and(|e| e == "rs") {
            take(&std::fs::read_to_string(&path).expect("Rust is text"));
        }
    }
}

#[test]
fn the_table_names_the_bugs_that_are_in_the_code() {
    let mut found = BTreeSet::new();
    for part in ["proto", "master", "chunkserver", "client", "env"] {
        each_source(&top().join(part), &mut |text| {
            let names = text.split("planted!(\"").skip(1).filter_map(|rest| rest.split('"').next());
            found.extend(names.map(String::from));
        });
    }
    let listed: BTreeSet<String> = BUGS.iter().map(|bug| bug.name.to_owned()).collect();
    assert_eq!(found, listed);
    assert!(listed.len() >= 15);
    let readme = std::fs::read_to_string(top().join("cluster-sim/chaos/README.md")).expect("it is there");
    for bug in BUGS {
        assert!(readme.contains(&format!("| `{}` |", bug.name)), "README.md does not say how {} is caught", bug.name);
    }
}

/// The programs beside this test: where they are built, they must be free of markers. A build with planted bugs that lies
/// beside them, where `scripts/planted` leaves it, must have them: so what is searched for is the right thing.
#[test]
fn shipped_programs_have_no_planted_bugs() {
    let test = std::env::current_exe().expect("this test has a path");
    let dir = test.parent().and_then(Path::parent).expect("target/PROFILE/deps");
    let holds = |path: &Path| {
        let bytes = std::fs::read(path).expect("a program can be read");
        let marker = MARKER.as_bytes();
        bytes.windows(marker.len()).any(|at| at == marker)
    };
    let own = Path::new(env!("CARGO_BIN_EXE_quarry-chaos"));
    assert!(!holds(own), "{} was built with planted bugs", own.display());
    for program in ["quarry", "quarry-master", "quarry-chunkserver"] {
        let path = dir.join(program);
        assert!(path.exists(), "{} is not built; run `cargo build --workspace --bins` first", path.display());
        assert!(!holds(&path), "{} was built with planted bugs", path.display());
    }
    let planted = dir.join("planted/quarry-chaos");
    if planted.exists() {
        assert!(holds(&planted), "{} has no planted bugs: what does this test look for?", planted.display());
    }
    // And what is searched for is what the macro makes.
    let macro_of = std::fs::read_to_string(top().join("proto/types/src/planted.rs")).expect("it is there");
    assert!(macro_of.contains(&format!("concat!(\"{MARKER}\", $name)")));
    for manifest in manifests(&top()) {
        let text = std::fs::read_to_string(&manifest).expect("a manifest");
        let features = text.split("[features]").nth(1).unwrap_or_default();
        assert!(!features.contains("planted"), "{}: planted bugs are a cfg, never a feature", manifest.display());
    }
}

/// Every `Cargo.toml` of the workspace.
fn manifests(top: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(top.join("Cargo.toml")).expect("the workspace's manifest");
    let members = text.split("members = [").nth(1).and_then(|rest| rest.split(']').next()).expect("members");
    let members = members.split('"').skip(1).step_by(2).map(|member| top.join(member).join("Cargo.toml"));
    let all: Vec<PathBuf> = members.chain([top.join("Cargo.toml")]).collect();
    assert!(all.len() > 10, "{all:?}");
    all
}
