//! One large file: put it, get it back.

use std::time::Duration;

use quarry_client::{Client, CreateOptions};
use quarry_types::limits::{BLOCK_BYTES, CHUNK_BYTES};

use super::{Setting, result::Measured, source::Source};
use crate::error::{CliError, Outcome};

/// What goes through before it counts: connections are made and buffers have been touched.
const WARM_BYTES: u64 = 16 << 20;

/// Puts and gets a file.
pub async fn run(setting: &Setting<'_>) -> Outcome<Vec<Measured>> {
    let length = setting.args.size;
    let warm = setting.path("stream-warm");
    put(&setting.client, &setting.source, &warm, WARM_BYTES.min(length)).await?;
    get(&setting.network, &warm).await?;

    let path = setting.path("stream");
    let (client, source, name) = (setting.client.clone(), setting.source.clone(), path.clone());
    let operation = move |_| {
        let (client, source, name) = (client.clone(), source.clone(), name.clone());
        async move { put(&client, &source, &name, length).await }
    };
    let put = setting.run(1).measure("stream.put", 1, operation).await?;
    let mut measured = vec![put, measure_get(setting, "stream.get", &setting.network, &path).await?];
    if is_local(setting, &path).await? {
        measured.push(measure_get(setting, "stream.get-local", &setting.client, &path).await?);
    }
    setting.client.remove(&path, false, true).await?;
    Ok(measured)
}

async fn measure_get(setting: &Setting<'_>, case: &'static str, client: &Client, path: &str) -> Outcome<Measured> {
    let (client, name) = (client.clone(), path.to_owned());
    let operation = move |_| {
        let (client, name) = (client.clone(), name.clone());
        async move { get(&client, &name).await }
    };
    setting.run(1).measure(case, 1, operation).await
}

/// Whether chunkservers on this machine give out the files of all that `path` holds. They learn of a seal a moment after who
/// wrote it, so it is asked again, as long as they gave some of it.
pub async fn is_local(setting: &Setting<'_>, path: &str) -> Outcome<bool> {
    const TRIES: u32 = 60;
    const TRIES_WITHOUT: u32 = 30;
    const AGAIN: Duration = Duration::from_millis(100);
    for tried in 1..=TRIES {
        let reader = setting.client.open(path).await?;
        let (mut offset, mut asked) = (0, 0);
        while offset < reader.length() {
            // A block of each chunk tells.
            asked += reader.read_range(offset, BLOCK_BYTES as usize).await?.len() as u64;
            offset += CHUNK_BYTES;
        }
        let local = reader.stats().local_bytes;
        if local >= asked || (local == 0 && tried >= TRIES_WITHOUT) {
            return Ok(local > 0);
        }
        setting.context.world.clock.sleep(AGAIN).await;
    }
    Ok(false)
}

/// Puts one file; returns its length.
pub async fn put(client: &Client, source: &Source, path: &str, length: u64) -> Outcome<u64> {
    let mut writer = client.create(path, &CreateOptions::default()).await?;
    source.write(&mut writer, length).await?;
    Ok(writer.finish().await?.file.length)
}

/// Gets one file, verified as every read is, and throws the bytes away; returns its length.
pub async fn get(client: &Client, path: &str) -> Outcome<u64> {
    let mut reader = client.open(path).await?;
    let mut bytes = 0;
    while let Some(piece) = reader.next_bytes().await? {
        bytes += piece.len() as u64;
    }
    if bytes != reader.length() {
        return Err(CliError::local(format!("{path} has {} bytes, and {bytes} came", reader.length())));
    }
    Ok(bytes)
}
