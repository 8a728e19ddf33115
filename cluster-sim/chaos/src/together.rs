//! Several writers of one file: each appends records of its own, and each record that was acknowledged is there once, whole, and
//! behind those that were acknowledged before it was begun (S1, S4). A record that was not may be there, in part, or not at all.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use quarry_client::{Client, ClientError, CreateMode, CreateOptions, ErrorCode};
use quarry_env::World;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    cluster::Outcome,
    worker::{Habits, Shared, leave, until_healed},
};

/// Records of one file.
const FILE_RECORDS: usize = 12;
/// How often a record's number is repeated in it, at most.
const REPEATS: u32 = 4000;

/// A record: when it was begun, and when it was acknowledged.
#[derive(Clone, Copy, Debug)]
struct Record {
    begin: Duration,
    end: Option<Duration>,
}

#[derive(Default)]
struct State {
    next: u32,
    /// By file, and by number.
    files: BTreeMap<usize, BTreeMap<u32, Record>>,
    ended: usize,
}

/// What those who append together have in common.
#[derive(Default)]
pub struct Together(Mutex<State>);

impl Together {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next record and its file.
    fn begin(&self) -> (usize, u32) {
        let mut state = self.state();
        let last = state.files.last_key_value().map_or(0, |(file, _)| *file);
        let full = state.files.get(&last).is_some_and(|records| records.len() >= FILE_RECORDS);
        let (file, number) = (last + usize::from(full), state.next);
        state.next += 1;
        state.files.entry(file).or_default().insert(number, Record { begin: now(), end: None });
        (file, number)
    }

    /// One client more has done its deeds; how many have.
    fn ended(&self) -> usize {
        let mut state = self.state();
        state.ended += 1;
        state.ended
    }

    fn acknowledged(&self, file: usize, number: u32) {
        let mut state = self.state();
        let record = state.files.get_mut(&file).and_then(|records| records.get_mut(&number));
        record.expect("it was begun").end = Some(now());
    }
}

fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

fn path(file: usize) -> String {
    format!("/together/{file}")
}

/// Begins with `<`, ends with `>`, and has neither in between: a piece of it cannot be taken for another one's.
fn bytes(number: u32) -> Vec<u8> {
    let repeats = 1 + number.wrapping_mul(0x9e37_79b1) % REPEATS;
    let mut out = b"<".to_vec();
    (0..repeats).for_each(|_| out.extend(format!("{number:08x}").bytes()));
    out.push(b'>');
    out
}

/// A client's life.
pub async fn append(client: Client, world: World, seed: u64, habits: Habits, shared: &Shared) -> Outcome {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x746f_6765);
    for _ in 0..habits.deeds {
        world.clock.sleep(Duration::from_millis(rng.random_range(0..habits.pause_ms))).await;
        let (file, number) = shared.together.begin();
        let outcome = one(&client, &path(file), number).await;
        tracing::info!(file, number, ok = outcome.is_ok(), "appended");
        match outcome {
            Ok(()) => shared.together.acknowledged(file, number),
            // Others write it.
            Err(error) if matches!(error.code(), ErrorCode::LeaseHeld | ErrorCode::AlreadyExists) => {}
            Err(error) => habits.passing("one of those who append together", &error)?,
        }
    }
    shared.idle.fetch_add(1, Ordering::Relaxed);
    until_healed(shared, &world).await;
    if shared.together.ended() == habits.together {
        judge(&client, &world, habits, shared).await?;
    }
    leave(&client).await
}

async fn one(client: &Client, path: &str, number: u32) -> Result<(), ClientError> {
    let mut writer = match client.append(path).await {
        Err(error) if error.code() == ErrorCode::NotFound => {
            let mode = CreateMode::Visible;
            client.create(path, &CreateOptions { mode, parents: true, ..CreateOptions::default() }).await?
        }
        other => other?,
    };
    writer.write_bytes(bytes(number).into()).await?;
    writer.finish().await.map(|_| ())
}

/// Reads all files from the healed cluster.
async fn judge(client: &Client, world: &World, habits: Habits, shared: &Shared) -> Outcome {
    let files = shared.together.state().files.clone();
    for (file, records) in files {
        let from = world.clock.now();
        let found = loop {
            match read(client, &path(file)).await {
                Ok(found) => break found,
                Err(error) if error.code() == ErrorCode::NotFound => break Vec::new(),
                Err(error) if world.clock.now().since(from) > habits.heal_deadline => return Err(error.into()),
                Err(error) => habits.passing("one of those who append together", &error)?,
            }
            world.clock.sleep(Duration::from_millis(500)).await;
        };
        if let Some(wrong) = breaks(&records, &found) {
            return Err(format!("{}: {wrong}", path(file)).into());
        }
    }
    Ok(())
}

async fn read(client: &Client, path: &str) -> Result<Vec<u8>, ClientError> {
    let mut reader = client.open(path).await?;
    let mut all = Vec::new();
    while let Some(part) = reader.next_bytes().await? {
        all.extend_from_slice(&part);
    }
    Ok(all)
}

/// What is wrong with a file that these records were appended to.
fn breaks(records: &BTreeMap<u32, Record>, found: &[u8]) -> Option<String> {
    let mut places = BTreeMap::<u32, usize>::new();
    let pieces = found.split(|byte| *byte == b'<');
    for (place, piece) in pieces.enumerate() {
        match (place, piece) {
            (0, []) => continue,
            (0, _) => return Some("S3: it does not begin with a record".into()),
            _ => {}
        }
        let piece = [b"<", piece].concat();
        let mut candidates = records.iter().filter(|(number, _)| bytes(**number).starts_with(&piece));
        let Some((number, record)) = candidates.next() else {
            return Some(format!("S3: {} bytes are of no record", piece.len()));
        };
        if !piece.ends_with(b">") {
            if piece.len() > 9 && record.end.is_some() {
                return Some(format!(
                    "S1: of record {number}, which was acknowledged, there are {} bytes",
                    piece.len()
                ));
            }
            continue;
        }
        if places.insert(*number, place).is_some() {
            return Some(format!("S4: record {number} is there twice"));
        }
    }
    let promised: Vec<(u32, Record)> = records.iter().filter(|(_, r)| r.end.is_some()).map(|(n, r)| (*n, *r)).collect();
    if let Some((number, _)) = promised.iter().find(|(number, _)| !places.contains_key(number)) {
        return Some(format!("S1: record {number}, which was acknowledged, is not there"));
    }
    for (one, first) in &promised {
        let later = promised.iter().filter(|(_, other)| first.end.is_some_and(|end| end < other.begin));
        if let Some((other, _)) = later.into_iter().find(|(other, _)| places[other] < places[one]) {
            return Some(format!("S4: record {other} stands before {one}, and was begun when that was acknowledged"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_lost_or_doubled_or_out_of_order_is_refused() {
        let at = Duration::from_secs;
        let records = BTreeMap::from([
            (1, Record { begin: at(0), end: Some(at(1)) }),
            (2, Record { begin: at(2), end: Some(at(3)) }),
            (3, Record { begin: at(2), end: None }),
        ]);
        let all = [bytes(1), bytes(2), bytes(3)];
        let [one, two, three] = [&all[0][..], &all[1][..], &all[2][..]];
        let of = |parts: &[&[u8]]| breaks(&records, &parts.concat());
        assert_eq!(of(&[one, two]), None);
        assert_eq!(of(&[one, &three[..three.len() / 2], two]), None);
        assert_eq!(of(&[one, &three[..1], two, three]), None);
        for (wrong, rule) in [
            (vec![one], "S1"),
            (vec![one, two, two], "S4"),
            (vec![two, one], "S4"),
            (vec![one, &two[..two.len() - 1], three], "S1"),
            (vec![b"x", one, two], "S3"),
            (vec![one, two, b"<zz"], "S3"),
        ] {
            assert!(of(&wrong).is_some_and(|why| why.starts_with(rule)), "{rule}: {:?}", of(&wrong));
        }
    }
}
