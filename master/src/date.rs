//! The `date` of responses, from the injected clock: without one, hyper asks the system's, and two runs of a
//! simulation would differ in the bytes they send.

use std::time::{Duration, UNIX_EPOCH};

use quarry_env::Clock;
use tonic::codegen::http::{HeaderValue, Response, header::DATE};

/// 9999-12-31T23:59:59Z, the last second that the header can name. Wall clocks may show anything.
const LAST_SECOND: u64 = 253_402_300_799;

/// `response`, dated.
pub fn dated<B>(clock: &dyn Clock, mut response: Response<B>) -> Response<B> {
    if let Ok(date) = HeaderValue::from_str(&date(clock.wall_ms())) {
        response.headers_mut().insert(DATE, date);
    }
    response
}

fn date(wall_ms: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs((wall_ms / 1000).min(LAST_SECOND)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_clock_has_a_date() {
        assert_eq!(date(784_111_777_999), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
