//! Neighbours and FDB entries, which the kernel keeps in messages of one form (include/uapi/linux/neighbour.h).
use alloc::vec::Vec;
use core::net::IpAddr;

use super::{Attributes, Header, Request, address, number, short};

/// `RTM_NEWNEIGH`.
pub const NEW: u16 = 28;
/// `RTM_DELNEIGH`.
pub const DELETED: u16 = 29;
/// `RTM_GETNEIGH`.
pub const GET: u16 = 30;
/// The state of an entry that stays until it is deleted (`NUD_PERMANENT`).
pub const PERMANENT: u16 = 0x80;

const BODY_LEN: usize = 12;
const DESTINATION: u16 = 1;
const LINK_ADDRESS: u16 = 2;

/// A neighbour (`destination` has `mac`) or, of the family `AF_BRIDGE`, an FDB entry (`mac` is at `destination`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The address family.
    pub family: u8,
    /// The number of the link.
    pub link: u32,
    /// How far the entry is to be relied upon (`NUD_*`).
    pub state: u16,
    /// `NTF_*`: `NTF_SELF` for the device's own FDB.
    pub flags: u8,
    /// The IP address.
    pub destination: Option<IpAddr>,
    /// The Ethernet address.
    pub mac: Option<[u8; 6]>,
}

impl Neighbour {
    /// Appends a request about the entry.
    pub fn emit(&self, buffer: &mut Vec<u8>, header: Header) {
        let mut fixed = [0; BODY_LEN];
        fixed[0] = self.family;
        fixed[4..8].copy_from_slice(&self.link.to_ne_bytes());
        fixed[8..10].copy_from_slice(&self.state.to_ne_bytes());
        fixed[10] = self.flags;
        let mut request = Request::begin(buffer, header, &fixed);
        if let Some(destination) = self.destination {
            request.put_address(DESTINATION, destination);
        }
        if let Some(mac) = self.mac {
            request.put(LINK_ADDRESS, &mac);
        }
        request.end();
    }

    /// The entry in a message's body; `None` if the body is too short.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let mut found = Self {
            family: *body.first()?,
            link: number(body, 4)?,
            state: short(body, 8)?,
            flags: *body.get(10)?,
            destination: None,
            mac: None,
        };
        for (kind, value) in Attributes::new(body, BODY_LEN) {
            match kind {
                DESTINATION => found.destination = address(value),
                LINK_ADDRESS => found.mac = value.try_into().ok(),
                _ => {}
            }
        }
        Some(found)
    }
}
