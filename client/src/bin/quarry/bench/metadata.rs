//! Names only: create and complete, stat, rename, remove, several at once.

use quarry_client::{Client, CreateOptions};

use super::{Setting, result::Measured};
use crate::error::Outcome;

/// Each phase at each concurrency, in a directory of its own.
pub async fn run(setting: &Setting<'_>) -> Outcome<Vec<Measured>> {
    let mut measured = Vec::new();
    for at_once in &setting.args.concurrency {
        measured.extend(at(setting, *at_once).await?);
    }
    Ok(measured)
}

async fn at(setting: &Setting<'_>, at_once: u32) -> Outcome<Vec<Measured>> {
    let files = u64::from(setting.args.files);
    let dir = setting.path(&format!("metadata-{at_once}"));
    setting.client.mkdir(&dir, false).await?;
    let run = setting.run(at_once);
    let create = creating(&setting.client, &dir);
    let stat = {
        let (client, dir) = (setting.client.clone(), dir.clone());
        move |n| {
            let (client, path) = (client.clone(), name(&dir, n));
            async move { Ok(client.stat(&path).await?.length) }
        }
    };
    let rename = {
        let (client, dir) = (setting.client.clone(), dir.clone());
        move |n| {
            let (client, path) = (client.clone(), name(&dir, n));
            async move { Ok(client.rename(&path, &renamed(&path), false).await?.length) }
        }
    };
    let remove = {
        let client = setting.client.clone();
        move |n| {
            let (client, path) = (client.clone(), renamed(&name(&dir, n)));
            async move {
                client.remove(&path, false, true).await?;
                Ok(0)
            }
        }
    };
    Ok(vec![
        run.measure("metadata.create", files, create).await?,
        run.measure("metadata.stat", files, stat).await?,
        run.measure("metadata.rename", files, rename).await?,
        run.measure("metadata.remove", files, remove).await?,
    ])
}

/// The name of file `n` in a directory.
fn name(dir: &str, n: u64) -> String {
    format!("{dir}/{n:08}")
}

fn renamed(path: &str) -> String {
    format!("{path}-renamed")
}

/// Creates and completes empty files in a directory.
pub fn creating(
    client: &Client,
    dir: &str,
) -> impl Fn(u64) -> futures::future::BoxFuture<'static, Outcome<u64>> + Clone + Send + use<> {
    let (client, dir) = (client.clone(), dir.to_owned());
    move |n| {
        let (client, path) = (client.clone(), name(&dir, n));
        Box::pin(async move {
            let writer = client.create(&path, &CreateOptions::default()).await?;
            Ok(writer.finish().await?.file.length)
        })
    }
}
