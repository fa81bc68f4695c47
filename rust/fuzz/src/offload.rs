//! Any header and packets: no panic, and what was joined splits into what it was made of.
use overlaynet_core::offload::{
    MAX_HEADERS_BYTES, Run, Split, VNET_HEADER_BYTES, VnetHeader, complete_checksum,
};
use overlaynet_core::wire::checksum::Sum;

/// Panics where that does not hold.
pub fn check(header: [u8; VNET_HEADER_BYTES], mut first: Vec<u8>, second: &[u8]) {
    let mut room = [0; MAX_HEADERS_BYTES];
    if let Some(mut run) = Run::begin(&first, Sum::plus)
        && run.take(&first, second, Sum::plus)
    {
        let vnet = run.emit(&first, &mut room);
        let headers = run.header_len();
        let mut whole = room[..headers].to_vec();
        // What lies behind a packet's own end is no part of it.
        let end = |packet: &[u8]| match packet[0] >> 4 {
            4 => usize::from(u16::from_be_bytes([packet[2], packet[3]])),
            _ => 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]])),
        };
        whole.extend(&first[headers..end(&first)]);
        whole.extend(&second[headers..end(second)]);
        let split = Split::new(&vnet, &whole).expect("a run is a super-packet");
        assert_eq!(split.len(), 2);
        for (at, packet) in [&first[..], second].into_iter().enumerate() {
            let mut part = vec![0; split.packet_len(at)];
            split.emit(at, &mut part, Sum::plus_copied);
            assert_eq!(part[headers..], packet[headers..end(packet)]);
        }
    }
    if let Some(vnet) = VnetHeader::parse(header) {
        if let Ok(split) = Split::new(&vnet, &first) {
            for at in 0..split.len() {
                split.emit(at, &mut vec![0; split.packet_len(at)], Sum::plus_copied);
            }
        }
        let _ = complete_checksum(&vnet, &mut first, Sum::plus);
    }
}
