//! Many small files: put, stat, get, remove, several at once.

use super::{Setting, result::Measured, stream};
use crate::error::{CliError, Outcome};

/// Each phase at each concurrency, in a directory of its own: what was removed before does not slow it down.
pub async fn run(setting: &Setting<'_>) -> Outcome<Vec<Measured>> {
    let mut measured = Vec::new();
    for at_once in &setting.args.concurrency {
        measured.extend(at(setting, *at_once).await?);
    }
    Ok(measured)
}

async fn at(setting: &Setting<'_>, at_once: u32) -> Outcome<Vec<Measured>> {
    let (length, files) = (setting.args.file_size, u64::from(setting.args.files));
    let dir = setting.path(&format!("small-{at_once}"));
    setting.client.mkdir(&dir, false).await?;
    let run = setting.run(at_once);
    let path = move |n: u64| format!("{dir}/{n:07}");

    let put = {
        let (client, source, path) = (setting.client.clone(), setting.source.clone(), path.clone());
        move |n| {
            let (client, source, path) = (client.clone(), source.clone(), path(n));
            async move { stream::put(&client, &source, &path, length).await }
        }
    };
    let stat = {
        let (client, path) = (setting.client.clone(), path.clone());
        move |n| {
            let (client, path) = (client.clone(), path(n));
            async move {
                let found = client.stat(&path).await?.length;
                if found == length { Ok(0) } else { Err(CliError::local(format!("{path} has {found} bytes"))) }
            }
        }
    };
    let get = {
        let (client, path) = (setting.client.clone(), path.clone());
        move |n| {
            let (client, path) = (client.clone(), path(n));
            async move { stream::get(&client, &path).await }
        }
    };
    let remove = {
        let client = setting.client.clone();
        move |n| {
            let (client, path) = (client.clone(), path(n));
            async move {
                client.remove(&path, false, true).await?;
                Ok(0)
            }
        }
    };
    Ok(vec![
        run.measure("small.put", files, put).await?,
        run.measure("small.stat", files, stat).await?,
        run.measure("small.get", files, get).await?,
        run.measure("small.remove", files, remove).await?,
    ])
}
