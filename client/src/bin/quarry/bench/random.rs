//! Reads at random offsets of one file.

use super::{Setting, result::Measured, stream};
use crate::error::{CliError, Outcome};

/// Sizes that are read, with their names.
const SIZES: [(usize, &str); 2] = [(64 << 10, "random.64k"), (1 << 20, "random.1m")];

/// Writes the file, reads all of it once, so that it is in the servers' memory, and then here and there.
pub async fn run(setting: &Setting<'_>) -> Outcome<Vec<Measured>> {
    let path = setting.path("random");
    let length = setting.args.size;
    stream::put(&setting.client, &setting.source, &path, length).await?;
    stream::get(&setting.client, &path).await?;
    let reader = setting.client.open(&path).await?;
    let random = &setting.context.world.random;
    let run = setting.run(1);
    let mut measured = Vec::new();
    for (size, name) in SIZES {
        let places = length.saturating_sub(size as u64) + 1;
        let mut operation = async |_| {
            let offset = (random.next_u128() % u128::from(places)) as u64;
            let bytes = reader.read_range(offset, size).await?.len();
            if bytes as u64 != (size as u64).min(length - offset) {
                return Err(CliError::local(format!("{bytes} of {size} bytes came from offset {offset}")));
            }
            Ok(bytes as u64)
        };
        let operations = u64::from(setting.args.operations);
        let _warm = run.one_by_one(name, operations / 10, &mut operation).await?;
        measured.push(run.one_by_one(name, operations, operation).await?);
    }
    setting.client.remove(&path, false, true).await?;
    Ok(measured)
}
