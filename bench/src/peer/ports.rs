//! Free ports for programs that cannot take one from the kernel.

use std::net::TcpListener;

use crate::error::{Failed, Outcome};

/// Ports are looked for from here on: below 32768, where the ports of clients begin.
const FIRST: u16 = 12_000;
/// And up to here, so that SeaweedFS's second port, which is 10000 above each, is below 32768 as well.
const LAST: u16 = 22_000;

/// `count` ports that nobody has, nor the ones that are `beside` above them.
///
/// # Errors
/// When there are too few.
pub fn free(count: usize, beside: u16) -> Outcome<Vec<u16>> {
    // Where this process looks first: two suites at once rarely meet.
    let start = FIRST + u16::try_from(std::process::id() % u32::from(LAST - FIRST)).unwrap_or_default();
    let unused = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let found: Vec<u16> =
        (start..LAST).chain(FIRST..start).filter(|port| unused(*port) && unused(port + beside)).take(count).collect();
    if found.len() == count { Ok(found) } else { Err(Failed::new("looking for free ports", "there are too few")) }
}
