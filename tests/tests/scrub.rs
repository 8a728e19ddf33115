//! Corruption that nobody reads: scrubbing finds it, and the replicas are replaced from good ones.

use std::{fs, path::Path, time::Duration};

use quarry_tests::{
    Cluster, Options, cli,
    damage::{DATA_AT, flip},
    data, wait,
};

const FILES: u64 = 100;
const LIMIT: Duration = Duration::from_secs(120);

/// Whether every replica of every file is the file: read from the chunk files themselves, behind the servers' backs.
fn files_that_differ(cluster: &Cluster, contents: &[Vec<u8>]) -> Vec<String> {
    let is_whole = |path: &Path| {
        let bytes = fs::read(path).unwrap_or_default();
        let data = bytes.get(DATA_AT as usize..).unwrap_or_default();
        contents.iter().any(|content| data == content)
    };
    let files = cluster.chunk_files().into_iter().map(|(_, path)| path);
    files.filter(|path| !is_whole(path)).map(|path| path.display().to_string()).collect()
}

#[test]
fn s2_corruption_in_one_percent_of_replicas_is_found_and_replaced_and_spreads_nowhere() {
    let cluster = Cluster::start(&Options {
        chunkservers: 4,
        racks: 4,
        chunkserver_args: ["--scrub-period", "3s", "--scrub-rate", "1GiB"].map(String::from).to_vec(),
        settings: vec!["repair-delay=0s".into(), "quarantine-keep=0s".into()],
        ..Options::default()
    });
    let contents: Vec<Vec<u8>> = (0..FILES).map(|n| data::bytes(n, 100_000)).collect();
    for (n, bytes) in contents.iter().enumerate() {
        cli::run_with_input(&cluster.master.address, &["put", "-", &format!("/f{n}")], bytes).ok();
    }
    let files: Vec<_> = cluster.chunk_files().into_iter().map(|(_, path)| path).collect();
    assert_eq!(files.len() as u64, 3 * FILES);
    assert_eq!(files_that_differ(&cluster, &contents), Vec::<String>::new());
    // One replica in a hundred of each kind of damage, of chunks that share no replica with one another.
    flip(&files[10], 70_000);
    fs::File::options().write(true).open(&files[110]).and_then(|f| f.set_len(DATA_AT + 5000)).expect("a file");
    fs::remove_file(&files[210]).expect("a file");
    wait::until("every replica to be right again", LIMIT, || {
        let rows = cluster.repairs();
        let differ = files_that_differ(&cluster, &contents);
        let count = cluster.chunk_files().len() as u64;
        if rows.is_empty() && differ.is_empty() && count == 3 * FILES {
            Ok(())
        } else {
            Err(format!("{count} files, {differ:?}, {rows:?}"))
        }
    });
    let finished = cluster.quarry(&["repairs", "--json", "--finished"]).json();
    let rows = finished["repairs"].as_array().cloned().unwrap_or_default();
    assert!(rows.len() >= 3, "the ledger shows each: {rows:?}");
    for (n, bytes) in contents.iter().enumerate() {
        assert_eq!(&cluster.quarry(&["cat", &format!("/f{n}")]).ok(), bytes);
    }
}
