//! A log: a little at the end of a file, durable each time.

use quarry_client::{CreateMode, CreateOptions};

use super::{Setting, result::Measured};
use crate::error::Outcome;

/// Bytes of each append.
const APPEND_BYTES: u64 = 1024;
/// Appends that do not count.
const WARM: u64 = 10;

/// Appends to one file that is visible all the time.
pub async fn run(setting: &Setting<'_>) -> Outcome<Vec<Measured>> {
    let path = setting.path("append");
    let options = CreateOptions { mode: CreateMode::Visible, ..CreateOptions::default() };
    let mut writer = setting.client.create(&path, &options).await?;
    let run = setting.run(1);
    let mut operation = async |_| {
        setting.source.write(&mut writer, APPEND_BYTES).await?;
        writer.flush_durable().await?;
        Ok(APPEND_BYTES)
    };
    let _warm = run.one_by_one("append", WARM, &mut operation).await?;
    let measured = run.one_by_one("append", u64::from(setting.args.operations), operation).await?;
    writer.finish().await?;
    setting.client.remove(&path, false, true).await?;
    Ok(vec![measured])
}
