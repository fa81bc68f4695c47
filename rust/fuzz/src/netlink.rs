//! Any bytes as messages of the kernel: a walk that ends, values that can be written, and one message for each.
use overlaynet_core::netlink::answer::Answer;
use overlaynet_core::netlink::neighbour::Neighbour;
use overlaynet_core::netlink::next_hop::NextHop;
use overlaynet_core::netlink::route::Route;
use overlaynet_core::netlink::{Attributes, HEADER_LEN, Messages};

/// Panics where that does not hold.
pub fn check(bytes: &[u8]) {
    let mut left = bytes.len();
    for message in Messages::new(bytes) {
        assert!(HEADER_LEN + message.body.len() <= left);
        left -= HEADER_LEN + message.body.len();
        let _ = Answer::parse(&message);
        for offset in [0, 4, 8, 12] {
            let mut room = message.body.len();
            for (_, value) in Attributes::new(message.body, offset) {
                assert!(4 + value.len() <= room);
                room -= 4 + value.len();
            }
        }
        let mut written = Vec::new();
        let mut values = 0;
        if let Some(value) = Route::parse(message.body) {
            value.emit(&mut written, message.header);
            values += 1;
        }
        if let Some(value) = NextHop::parse(message.body) {
            value.emit(&mut written, message.header);
            values += 1;
        }
        if let Some(value) = Neighbour::parse(message.body) {
            value.emit(&mut written, message.header);
            values += 1;
        }
        assert_eq!(Messages::new(&written).count(), values);
    }
}
