use core::net::IpAddr;
use std::vec::Vec;

use proptest::prelude::*;

use super::answer::Answer;
use super::neighbour::Neighbour;
use super::next_hop::NextHop;
use super::route::Route;
use super::*;

fn address_of(v6: bool) -> impl Strategy<Value = IpAddr> {
    (any::<[u8; 4]>(), any::<[u8; 16]>()).prop_map(move |(four, sixteen)| {
        if v6 {
            IpAddr::from(sixteen)
        } else {
            IpAddr::from(four)
        }
    })
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    any::<bool>().prop_flat_map(address_of)
}

prop_compose! {
    fn any_header()(kind: u16, flags: u16, sequence: u32, port: u32) -> Header {
        Header { kind, flags, sequence, port }
    }
}

prop_compose! {
    fn any_neighbour()(
        family: u8,
        link: u32,
        state: u16,
        flags: u8,
        destination in proptest::option::of(any_address()),
        mac: Option<[u8; 6]>,
    ) -> Neighbour {
        Neighbour { family, link, state, flags, destination, mac }
    }
}

prop_compose! {
    fn any_next_hop()(
        id in 1..u32::MAX,
        family: u8,
        protocol: u8,
        flags: u32,
        link: u32,
        gateway in proptest::option::of(any_address()),
    ) -> NextHop {
        NextHop { id, family, protocol, flags, link, gateway, other: false }
    }
}

prop_compose! {
    fn any_route()(
        destination in any_address(),
        length in 1_u8..=128,
        table: u32,
        fields: [u8; 3],
        numbers: [u32; 4],
        gateway in proptest::option::of(any_address()),
        source in proptest::option::of(any_address()),
    ) -> Route {
        let [protocol, scope, action] = fields;
        let [flags, link, metric, next_hop] = numbers;
        Route {
            destination, length, table, protocol, scope, action, flags, link, gateway, metric, source, next_hop, other: false,
        }
    }
}

proptest! {
    #[test]
    fn what_is_emitted_is_parsed_again(
        header in any_header(),
        route in any_route(),
        neighbour in any_neighbour(),
        next_hop in any_next_hop(),
    ) {
        let mut buffer = Vec::new();
        route.emit(&mut buffer, header);
        neighbour.emit(&mut buffer, header);
        next_hop.emit(&mut buffer, header);
        let messages: Vec<_> = Messages::new(&buffer).collect();
        prop_assert_eq!(messages.len(), 3);
        for message in &messages {
            prop_assert_eq!(message.header, header);
        }
        prop_assert_eq!(Route::parse(messages[0].body), Some(route));
        prop_assert_eq!(Neighbour::parse(messages[1].body), Some(neighbour));
        prop_assert_eq!(NextHop::parse(messages[2].body), Some(next_hop));
    }

    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), short in 0_u8..60) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            // Lengths that fit make the walk go deeper than random ones.
            *first = short;
            bytes.iter_mut().skip(1).take(3).for_each(|byte| *byte = 0);
        }
        for message in Messages::new(&bytes) {
            let _ = Answer::parse(&message);
        }
        let _ = (Route::parse(&bytes), Neighbour::parse(&bytes), NextHop::parse(&bytes));
        prop_assert!(Attributes::new(&bytes, usize::from(short)).count() <= bytes.len() / 4);
    }
}

fn error(flags: u16, body: &[u8]) -> Vec<u8> {
    let mut buffer = Vec::new();
    let header = Header {
        kind: 2,
        flags,
        sequence: 7,
        port: 0,
    };
    let mut request = Request::begin(&mut buffer, header, body);
    request.put(1, b"Nexthop id does not exist\0");
    request.end();
    buffer
}

#[test]
fn an_error_is_read_with_its_words_whether_the_request_is_repeated_whole_or_not() {
    let mut body = Vec::from((-22_i32).to_ne_bytes());
    body.extend_from_slice(&24_u32.to_ne_bytes());
    body.extend_from_slice(&[0; 12]);
    let capped = error(0x300, &body);
    body.extend_from_slice(&[0; 8]);
    let whole = error(0x200, &body);
    for buffer in [capped, whole] {
        let message = Messages::new(&buffer).next();
        let answer = message.as_ref().and_then(Answer::parse);
        let expected = Answer {
            sequence: 7,
            errno: 22,
            words: b"Nexthop id does not exist",
            done: false,
            interrupted: false,
        };
        assert_eq!(answer, Some(expected));
    }
}
