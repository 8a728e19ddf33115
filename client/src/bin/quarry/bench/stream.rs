//! One large file: put it, get it back.

use quarry_client::{Client, CreateOptions};

use super::{Setting, result::Measured, source::Source};
use crate::error::{CliError, Outcome};

/// What goes through before it counts: connections are made and buffers have been touched.
const WARM_BYTES: u64 = 16 << 20;

/// Puts and gets a file.
pub async fn run(setting: &Setting<'_>) -> Outcome<Vec<Measured>> {
    let length = setting.args.size;
    let warm = setting.path("stream-warm");
    put(&setting.client, &setting.source, &warm, WARM_BYTES.min(length)).await?;
    get(&setting.client, &warm).await?;

    let path = setting.path("stream");
    let (client, source, name) = (setting.client.clone(), setting.source.clone(), path.clone());
    let operation = move |_| {
        let (client, source, name) = (client.clone(), source.clone(), name.clone());
        async move { put(&client, &source, &name, length).await }
    };
    let put = setting.run(1).measure("stream.put", 1, operation).await?;
    let (client, name) = (setting.client.clone(), path.clone());
    let operation = move |_| {
        let (client, name) = (client.clone(), name.clone());
        async move { get(&client, &name).await }
    };
    let got = setting.run(1).measure("stream.get", 1, operation).await?;
    setting.client.remove(&path, false, true).await?;
    Ok(vec![put, got])
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
