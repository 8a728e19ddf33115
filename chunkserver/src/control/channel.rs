//! Calls to the master.

use std::time::Duration;

use quarry_env::{World, clock::timeout};
use quarry_proto::WireError;
use quarry_types::ErrorCode;
use tonic::Status;

/// A call must be answered within this.
pub(super) const CALL_DEADLINE: Duration = Duration::from_secs(5);

/// Makes a call within a deadline, with the master's address in what goes wrong.
pub(super) async fn call<T>(
    world: &World,
    address: &str,
    limit: Duration,
    calling: impl Future<Output = Result<T, Status>>,
) -> Result<T, WireError> {
    match timeout(&*world.clock, limit, calling).await {
        Ok(answer) => answer.map_err(|status| {
            let error = WireError::from(status);
            WireError { message: format!("master at {address}: {}", error.message), ..error }
        }),
        Err(late) => Err(WireError::new(ErrorCode::DeadlineExceeded, format!("master at {address}: {late}"))),
    }
}
