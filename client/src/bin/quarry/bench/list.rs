//! Listing a large directory.

use bytes::Bytes;
use futures::StreamExt as _;

use super::{Setting, metadata, result::Measured};
use crate::error::{CliError, Outcome};

/// Empty files are made so many at once.
const MAKERS: u32 = 64;
/// Times that the first page is asked for.
const FIRST_PAGES: u64 = 20;

/// Makes the files, lists all of them once, and the first page several times.
pub async fn run(setting: &Setting<'_>) -> Outcome<Vec<Measured>> {
    let files = u64::from(setting.args.files);
    let dir = setting.path("list");
    setting.client.mkdir(&dir, false).await?;
    let _made = setting.run(MAKERS).measure("made", files, metadata::creating(&setting.client, &dir)).await?;

    let (client, path) = (setting.client.clone(), dir.clone());
    let all = move |_| {
        let mut entries = Box::pin(client.list(&path));
        async move {
            let mut count = 0;
            while let Some(entry) = entries.next().await {
                entry?;
                count += 1;
            }
            if count == files { Ok(0) } else { Err(CliError::local(format!("{count} of {files} names were listed"))) }
        }
    };
    let (client, path) = (setting.client.clone(), dir);
    let first = move |_| {
        let (client, path) = (client.clone(), path.clone());
        async move {
            client.list_page(&path, Bytes::new(), 0).await?;
            Ok(0)
        }
    };
    Ok(vec![
        setting.run(1).measure("list.first", FIRST_PAGES, first).await?,
        setting.run(1).measure("list.all", 1, all).await?,
    ])
}
