//! Next-hop objects (include/uapi/linux/nexthop.h; Linux 5.3): a gateway and a link under a number that routes point to.
use alloc::vec::Vec;
use core::net::IpAddr;

use super::{Attributes, Header, Request, address, number};

/// `RTM_NEWNEXTHOP`.
pub const NEW: u16 = 104;
/// `RTM_DELNEXTHOP`.
pub const DELETED: u16 = 105;
/// `RTM_GETNEXTHOP`.
pub const GET: u16 = 106;

const BODY_LEN: usize = 8;
const ID: u16 = 1;
const GROUP: u16 = 2;
const BLACKHOLE: u16 = 4;
const LINK: u16 = 5;
const GATEWAY: u16 = 6;

/// A next hop. One with only an `id` names an object that is to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The number that routes point to.
    pub id: u32,
    /// The address family; 0 to delete.
    pub family: u8,
    /// Who made it (`rtm_protocol`).
    pub protocol: u8,
    /// `RTNH_F_*`.
    pub flags: u32,
    /// The number of the link, or 0.
    pub link: u32,
    /// The gateway.
    pub gateway: Option<IpAddr>,
    /// Whether it is anything else than one gateway or link: a group, or a hole. Never emitted.
    pub other: bool,
}

impl NextHop {
    /// Appends a request about the next hop.
    pub fn emit(&self, buffer: &mut Vec<u8>, header: Header) {
        let mut fixed = [0; BODY_LEN];
        fixed[0] = self.family;
        fixed[2] = self.protocol;
        fixed[4..8].copy_from_slice(&self.flags.to_ne_bytes());
        let mut request = Request::begin(buffer, header, &fixed);
        request.put_number(ID, self.id);
        if self.link != 0 {
            request.put_number(LINK, self.link);
        }
        if let Some(gateway) = self.gateway {
            request.put_address(GATEWAY, gateway);
        }
        request.end();
    }

    /// The next hop in a message's body; `None` if the body is too short.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let mut found = Self {
            id: 0,
            family: *body.first()?,
            protocol: *body.get(2)?,
            flags: number(body, 4)?,
            link: 0,
            gateway: None,
            other: false,
        };
        for (kind, value) in Attributes::new(body, BODY_LEN) {
            match kind {
                ID => found.id = number(value, 0).unwrap_or(0),
                LINK => found.link = number(value, 0).unwrap_or(0),
                GATEWAY => found.gateway = address(value),
                GROUP | BLACKHOLE => found.other = true,
                _ => {}
            }
        }
        Some(found)
    }
}
