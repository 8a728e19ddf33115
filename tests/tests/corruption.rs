//! Damaged replicas: `get` is right by another, the bad one shows; with every replica bad nothing wrong is delivered.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use quarry_tests::{
    Cluster, Options, cli,
    damage::{DATA_AT, flip},
    data, wait,
};

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

/// Damages one replica of one file, then reads it often enough that every replica has been asked, and waits until
/// `status` counts the bad one.
fn damage_one(what: &str, damage: impl FnOnce(&[PathBuf])) {
    let cluster = Cluster::start(&Options::default());
    let bytes = data::bytes(5, 3 << 20);
    for name in ["/f", "/g"] {
        cli::run_with_input(&cluster.master.address, &["put", "-", name], &bytes).ok();
    }
    let files: Vec<PathBuf> = cluster.chunk_files().into_iter().filter(|(i, _)| *i == 0).map(|(_, p)| p).collect();
    assert_eq!(files.len(), 2, "server 0 has a replica of each");
    damage(&files);
    wait::until(&format!("{what} to show in status"), Duration::from_secs(60), || {
        for name in ["/f", "/g"] {
            assert_eq!(cluster.quarry(&["cat", name]).ok(), bytes, "{what}");
        }
        let corrupt = cluster.status()["totals"]["corrupt"].as_u64();
        if corrupt >= Some(1) { Ok(()) } else { Err(format!("{corrupt:?}")) }
    });
    for name in ["/f", "/g"] {
        assert_eq!(cluster.quarry(&["cat", name]).ok(), bytes, "{what}");
    }
}

#[test]
fn s3_a_flipped_bit_is_noticed_and_shown() {
    damage_one("a flipped bit", |files| flip(&files[0], 1_234_567));
}

#[test]
fn s3_a_truncated_chunk_file_is_noticed_and_shown() {
    damage_one("a truncated file", |files| {
        fs::File::options().write(true).open(&files[0]).and_then(|f| f.set_len(DATA_AT + 100_000)).expect("a file");
    });
}

#[test]
fn s3_a_deleted_chunk_file_is_noticed_and_shown() {
    damage_one("a deleted file", |files| fs::remove_file(&files[0]).expect("a file"));
}

#[test]
fn s3_two_swapped_chunk_files_are_noticed_and_shown() {
    damage_one("swapped files", |files| {
        let aside = files[0].with_extension("aside");
        fs::rename(&files[0], &aside).expect("a file");
        fs::rename(&files[1], &files[0]).expect("a file");
        fs::rename(&aside, &files[1]).expect("a file");
    });
}

#[test]
fn s3_with_every_replica_bad_the_lost_chunk_is_named_and_nothing_wrong_is_delivered() {
    let cluster = Cluster::start(&Options::default());
    let bytes = data::bytes(6, 3 << 20);
    cli::run_with_input(&cluster.master.address, &["put", "-", "/f"], &bytes).ok();
    let chunk = cluster.chunks("/f")["chunks"][0]["id"].to_string();
    let bad_at = 2_000_000;
    for (_, path) in cluster.chunk_files() {
        flip(&path, bad_at);
    }
    let back = cluster.path("back");
    let got = cluster.quarry(&["get", "/f", text(&back)]);
    assert_ne!(got.code, 0);
    assert!(got.stderr.contains(chunk.trim_matches('"')), "names the chunk {chunk}: {}", got.stderr);
    assert!(!back.exists(), "a failed get leaves nothing under the final name");
    let cat = cluster.quarry(&["cat", "/f"]);
    assert_ne!(cat.code, 0);
    assert!(cat.stdout.len() as u64 <= bad_at && bytes.starts_with(&cat.stdout), "{} bytes", cat.stdout.len());
}
