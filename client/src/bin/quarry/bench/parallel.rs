//! Several large files at once.

use super::{Setting, result::Measured, stream};
use crate::error::Outcome;

/// Puts and gets all of them, first one, then the other.
pub async fn run(setting: &Setting<'_>) -> Outcome<Vec<Measured>> {
    let streams = setting.args.streams;
    let length = (setting.args.size / u64::from(streams)).max(1);
    let paths: Vec<String> = (0..streams).map(|n| setting.path(&format!("parallel-{n}"))).collect();
    let path_of = {
        let paths = paths.clone();
        move |n: u64| paths.get(usize::try_from(n).unwrap_or_default()).cloned().unwrap_or_default()
    };

    let (client, source, path) = (setting.client.clone(), setting.source.clone(), path_of.clone());
    let operation = move |n| {
        let (client, source, path) = (client.clone(), source.clone(), path(n));
        async move { stream::put(&client, &source, &path, length).await }
    };
    let put = setting.run(streams).measure("parallel.put", u64::from(streams), operation).await?;
    let (client, path) = (setting.network.clone(), path_of);
    let operation = move |n| {
        let (client, path) = (client.clone(), path(n));
        async move { stream::get(&client, &path).await }
    };
    let got = setting.run(streams).measure("parallel.get", u64::from(streams), operation).await?;
    for path in paths {
        setting.client.remove(&path, false, true).await?;
    }
    Ok(vec![put, got])
}
