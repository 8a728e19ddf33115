//! Reads at random offsets of one file.

use quarry_client::FileReader;

use super::{Setting, result::Measured, stream};
use crate::error::{CliError, Outcome};

/// Sizes that are read, with their names over the network and from files of chunkservers on this machine.
const SIZES: [(usize, &str, &str); 2] =
    [(64 << 10, "random.64k", "random.64k-local"), (1 << 20, "random.1m", "random.1m-local")];

/// Writes the file, reads all of it once, so that it is in the servers' memory, and then here and there.
pub async fn run(setting: &Setting<'_>) -> Outcome<Vec<Measured>> {
    let path = setting.path("random");
    stream::put(&setting.client, &setting.source, &path, setting.args.size).await?;
    stream::get(&setting.network, &path).await?;
    let is_local = stream::is_local(setting, &path).await?;
    let (network, local) = (setting.network.open(&path).await?, setting.client.open(&path).await?);
    let mut measured = Vec::new();
    for (size, over_network, from_files) in SIZES {
        measured.push(here_and_there(setting, over_network, &network, size).await?);
        if is_local {
            measured.push(here_and_there(setting, from_files, &local, size).await?);
        }
    }
    setting.client.remove(&path, false, true).await?;
    Ok(measured)
}

async fn here_and_there(
    setting: &Setting<'_>,
    case: &'static str,
    reader: &FileReader,
    size: usize,
) -> Outcome<Measured> {
    let (run, random, length) = (setting.run(1), &setting.context.world.random, reader.length());
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
    let _warm = run.one_by_one(case, operations / 10, &mut operation).await?;
    run.one_by_one(case, operations, operation).await
}
