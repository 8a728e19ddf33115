use proptest::prelude::*;

use super::*;

fn key() -> ClusterKey {
    ClusterKey::new([7; 32])
}

fn header(files: &[(String, Vec<u8>)]) -> v1::BackupHeader {
    let files = files.iter().map(|(name, bytes)| v1::SnapshotFile { name: name.clone(), length: bytes.len() as u64 });
    v1::BackupHeader {
        cluster: vec![0xc1; 16].into(),
        lineage_number: 2,
        lineage_id: vec![0x11; 16].into(),
        index: 300,
        taken_ms: 99,
        build: "0.1.0".into(),
        files: files.collect(),
    }
}

fn write(files: &[(String, Vec<u8>)], piece: usize) -> Vec<u8> {
    let (mut writer, first) = Writer::begin(&key(), &header(files));
    let mut out = first.to_vec();
    for (_, bytes) in files {
        for some in bytes.chunks(piece) {
            out.extend_from_slice(&writer.piece(some));
        }
        out.extend_from_slice(&writer.file_end());
    }
    out.extend_from_slice(&writer.end());
    out
}

type Read = (v1::BackupHeader, Vec<(String, Vec<u8>)>);

/// Reads a backup that comes in parts of this length.
fn read(bytes: &[u8], part: usize) -> Result<Read, BackupError> {
    let mut reader = Reader::new();
    let mut found: Option<Read> = None;
    for some in bytes.chunks(part) {
        reader.feed(some);
        while let Some(event) = reader.next()? {
            match event {
                Event::Header { header, signed } => {
                    assert!(verify(&key(), &signed) && !verify(&ClusterKey::new([8; 32]), &signed));
                    let files = header.files.iter().map(|file| (file.name.clone(), Vec::new())).collect();
                    found = Some((header, files));
                }
                Event::Piece { place, offset, bytes } => {
                    let file = &mut found.as_mut().unwrap().1[place].1;
                    assert_eq!(file.len() as u64, offset);
                    file.extend_from_slice(&bytes);
                }
                Event::FileEnd { .. } | Event::End => {}
            }
        }
    }
    reader.finish()?;
    Ok(found.unwrap())
}

fn named(contents: &[&[u8]]) -> Vec<(String, Vec<u8>)> {
    contents.iter().enumerate().map(|(n, bytes)| (format!("kv/{n:06}.sst"), bytes.to_vec())).collect()
}

fn sample() -> Vec<u8> {
    write(&named(&[b"abcdefgh", b"", b"xyz"]), 3)
}

/// What the first build wrote. It never changes: a new field has a new tag, and another form another format.
#[test]
fn yesterdays_backup_reads_back_and_is_written_the_same() {
    let text: String = sample().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(text, include_str!("format-1.txt").trim_end(), "what this build writes");
    let (found, files) = read(&sample(), 7).unwrap();
    assert_eq!(files, named(&[b"abcdefgh", b"", b"xyz"]));
    assert_eq!(found, header(&files));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let good = sample();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            assert!(read(&bad, 64).is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn every_truncation_is_noticed_and_so_is_what_follows() {
    let good = sample();
    for length in 0..good.len() {
        assert!(
            matches!(read(&good[..length], 64), Err(BackupError::CutOff { at }) if at == length as u64),
            "{length}"
        );
    }
    assert!(read(&[&good[..], b"x"].concat(), 64).is_err());
    assert!(read(&[&good[..], &good[..]].concat(), 64).is_err());
}

#[test]
fn what_is_no_backup_or_newer_is_told_apart() {
    assert_eq!(read(b"SQLite format 3", 64), Err(BackupError::NotABackup));
    let mut newer = sample();
    newer[8] = 2;
    assert_eq!(read(&newer, 64), Err(BackupError::Newer { found: 2 }));
}

#[test]
fn s8_a_backup_cannot_name_files_elsewhere() {
    for bad in ["../x", "/x", "kv/../x", "kv/", "", "kv/a/b", ".x", "kv/.x", "a b"] {
        assert!(read(&write(&[(bad.into(), b"x".to_vec())], 10), 64).is_err(), "{bad:?}");
    }
    let twice = [("a".to_owned(), b"x".to_vec()), ("a".to_owned(), b"y".to_vec())];
    assert!(read(&write(&twice, 10), 64).is_err());
    assert!(read(&write(&[("META".into(), b"x".to_vec())], 10), 64).is_ok());
}

/// A whole record of another place in the file, with a checksum of its own that is right.
#[test]
fn records_that_are_missing_repeated_or_in_another_order_are_noticed() {
    let good = sample();
    let mut cuts = vec![12];
    while *cuts.last().unwrap() < good.len() {
        let at = *cuts.last().unwrap();
        let length = u32::from_le_bytes(good[at + 1..at + 5].try_into().unwrap()) as usize;
        cuts.push(at + RECORD_HEAD + length + RECORD_CRC);
    }
    let records: Vec<&[u8]> = cuts.windows(2).map(|pair| &good[pair[0]..pair[1]]).collect();
    let with = |records: &[&[u8]]| [&good[..12], &records.concat()[..]].concat();
    assert_eq!(with(&records), good);
    for n in 0..records.len() {
        let mut without = records.clone();
        without.remove(n);
        assert!(read(&with(&without), 64).is_err(), "without record {n}");
        let mut twice = records.clone();
        twice.insert(n, records[n]);
        assert!(read(&with(&twice), 64).is_err(), "record {n} twice");
        for other in n + 1..records.len() {
            let mut swapped = records.clone();
            swapped.swap(n, other);
            assert!(read(&with(&swapped), 64).is_err(), "records {n} and {other} swapped");
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_written_reads_back(
        files in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..2000), 1..5),
        piece in 1usize..600,
        part in 1usize..3000,
    ) {
        let files: Vec<_> = files.into_iter().enumerate().map(|(n, bytes)| (format!("f{n}"), bytes)).collect();
        let (found, read) = read(&write(&files, piece), part).unwrap();
        prop_assert_eq!(found, header(&files));
        prop_assert_eq!(read, files);
    }

    #[test]
    fn foreign_bytes_never_panic(bytes: Vec<u8>, at in 0usize..400, part in 1usize..100) {
        let _ = read(&bytes, part);
        let good = sample();
        let at = at.min(good.len());
        let _ = read(&[&good[..at], &bytes[..]].concat(), part);
        let _ = read(&[&good[..12], &bytes[..]].concat(), part);
    }

    #[test]
    fn damage_anywhere_is_noticed(at: usize, flip in 1u8.., cut: usize) {
        let good = sample();
        let mut bad = good.clone();
        let at = at % good.len();
        bad[at] ^= flip;
        prop_assert!(read(&bad, 50).is_err());
        bad.truncate(cut % good.len());
        prop_assert!(read(&bad, 50).is_err());
    }
}
