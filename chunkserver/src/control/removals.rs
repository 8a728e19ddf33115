//! Removals belong to one registration (S7).
//!
//! A master counts what a registration's full report shows as there. So the report is made only when nothing that was ordered
//! before the registration removes anything any more: what is half-way then is waited for, and what comes later is refused.

use quarry_types::ErrorCode;
use tokio::sync::{RwLock, RwLockReadGuard};

use crate::store::StoreError;

/// The registration whose removals are carried out.
#[derive(Default)]
pub(crate) struct Removals(RwLock<u64>);

impl Removals {
    /// From now on removals that were ordered in another registration are refused. Completes when none is under way.
    /// Cancel-safe: nothing has changed then.
    pub(crate) async fn only_of(&self, registration: u64) {
        *self.0.write().await = registration;
    }

    /// A removal that was ordered in `registration` goes on while the guard is held.
    ///
    /// # Errors
    /// StaleLeader when that registration is over.
    pub(crate) async fn begin(&self, registration: u64) -> Result<RwLockReadGuard<'_, u64>, StoreError> {
        let present = self.0.read().await;
        if *present == registration {
            return Ok(present);
        }
        let message = "the order was given before this chunkserver registered again: nothing was done; give it again";
        Err(StoreError::new(ErrorCode::StaleLeader, message))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn s7_a_registration_waits_for_older_removals_and_refuses_later_ones() {
        let removals = Removals::default();
        removals.only_of(1).await;
        let under_way = removals.begin(1).await.unwrap();
        let mut next = Box::pin(removals.only_of(2));
        assert!((&mut next).now_or_never().is_none(), "one is half-way");
        let mut late = Box::pin(removals.begin(1));
        assert!((&mut late).now_or_never().is_none());
        drop(under_way);
        next.await;
        assert_eq!(late.await.err().map(|e| e.code()), Some(ErrorCode::StaleLeader));
        assert!(removals.begin(2).await.is_ok());
    }
}
