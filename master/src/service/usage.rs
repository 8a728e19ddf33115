use std::time::Duration;

use quarry_master_core::query::UsageWalk;
use quarry_proto::v1;
use quarry_types::ErrorCode;

use super::{Service, check};
use crate::{
    error::{Fault, fault},
    reading::Reading,
};

/// Entries looked at in one go: commands are applied in between.
const STEP: usize = 2000;
/// A tree that takes longer is summed by its parts.
const DEADLINE: Duration = Duration::from_secs(50);

impl Service {
    /// Sums over everything below a path, in bounded steps.
    pub async fn usage(&self, path: String, reading: &Reading) -> Result<v1::UsageReply, Fault> {
        check::path(&path)?;
        let until = self.shared.now().plus(DEADLINE);
        let begin = path.clone();
        let (mut walk, age) = self.shared.read_as(reading, move |tables| UsageWalk::begin(tables, &begin)).await?;
        loop {
            let done;
            (walk, done) = self
                .shared
                .peek(move |tables| {
                    let done = walk.step(tables, STEP)?;
                    Ok((walk, done))
                })
                .await?;
            if done {
                break;
            }
            if self.shared.now() >= until {
                let why = format!("{path} holds more than can be summed in {DEADLINE:?}; sum its parts");
                return Err(fault(ErrorCode::DeadlineExceeded, why));
            }
        }
        let sum = walk.sum();
        Ok(v1::UsageReply {
            files: sum.files,
            directories: sum.directories,
            bytes: sum.bytes,
            replica_bytes: sum.replica_bytes,
            staleness: age.map(Into::into),
        })
    }
}
