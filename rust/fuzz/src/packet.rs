//! Any bytes are walked, shown and written again; what is written twice is the same.
use overlaynet_core::wire::pretty::Pretty;
use overlaynet_core::wire::stack::{Header, Next, Walk, encode};

/// Panics where that does not hold.
pub fn check(bytes: &[u8]) {
    for first in [Next::Ethernet, Next::Ip, Next::Udp, Next::Tcp, Next::Vxlan] {
        assert!(!Pretty::new(bytes, first).to_string().is_empty() || bytes.is_empty());
        let mut walk = Walk::new(bytes, first, true);
        let headers: Vec<Header<'_>> = walk
            .by_ref()
            .map_while(Result::ok)
            .map(|found| found.header)
            .collect();
        let payload = &bytes[walk.payload()];
        // Refused only where a transport has no IP header around it, as when the walk starts with one.
        let Ok(written) = encode(&headers, payload) else {
            continue;
        };
        let mut again = Walk::new(&written, first, true);
        let read: Vec<Header<'_>> = again
            .by_ref()
            .map_while(Result::ok)
            .map(|found| found.header)
            .collect();
        assert_eq!(
            encode(&read, &written[again.payload()]).as_deref(),
            Ok(&written[..])
        );
    }
}
