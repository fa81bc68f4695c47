//! Routes (include/uapi/linux/rtnetlink.h).
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{AF_INET, Attributes, Header, Request, address, family, number};

/// `RTM_NEWROUTE`.
pub const NEW: u16 = 24;
/// `RTM_DELROUTE`.
pub const DELETED: u16 = 25;
/// `RTM_GETROUTE`.
pub const GET: u16 = 26;

const BODY_LEN: usize = 12;
const DESTINATION: u16 = 1;
const LINK: u16 = 4;
const GATEWAY: u16 = 5;
const METRIC: u16 = 6;
const SOURCE: u16 = 7;
const MULTIPATH: u16 = 9;
const TABLE: u16 = 15;
const VIA: u16 = 18;
const NEXT_HOP: u16 = 30;

/// A route to a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The prefix's base address.
    pub destination: IpAddr,
    /// The prefix's length.
    pub length: u8,
    /// The table.
    pub table: u32,
    /// Who made it.
    pub protocol: u8,
    /// How far the destination is (`RT_SCOPE_*`).
    pub scope: u8,
    /// What becomes of packets (`RTN_*`).
    pub action: u8,
    /// `RTNH_F_*`.
    pub flags: u32,
    /// The number of the link, or 0.
    pub link: u32,
    /// The gateway.
    pub gateway: Option<IpAddr>,
    /// The metric; of two routes to a prefix the one with the lesser counts.
    pub metric: u32,
    /// The source address of the host's own packets.
    pub source: Option<IpAddr>,
    /// The number of the next-hop object that stands for link and gateway, or 0.
    pub next_hop: u32,
    /// Whether it has several gateways, or one of another family. Never emitted.
    pub other: bool,
}

impl Route {
    /// Appends a request about the route.
    pub fn emit(&self, buffer: &mut Vec<u8>, header: Header) {
        let mut fixed = [0; BODY_LEN];
        fixed[0] = family(self.destination);
        fixed[1] = self.length;
        // Larger numbers do not fit here and go into an attribute (`RT_TABLE_COMPAT` is 252).
        fixed[4] = u8::try_from(self.table).unwrap_or(252);
        fixed[5] = self.protocol;
        fixed[6] = self.scope;
        fixed[7] = self.action;
        fixed[8..12].copy_from_slice(&self.flags.to_ne_bytes());
        let mut request = Request::begin(buffer, header, &fixed);
        if self.length != 0 {
            request.put_address(DESTINATION, self.destination);
        }
        if self.table > 255 {
            request.put_number(TABLE, self.table);
        }
        if self.link != 0 {
            request.put_number(LINK, self.link);
        }
        if let Some(gateway) = self.gateway {
            request.put_address(GATEWAY, gateway);
        }
        if self.metric != 0 {
            request.put_number(METRIC, self.metric);
        }
        if let Some(source) = self.source {
            request.put_address(SOURCE, source);
        }
        if self.next_hop != 0 {
            request.put_number(NEXT_HOP, self.next_hop);
        }
        request.end();
    }

    /// The route in a message's body; `None` if the body is too short or of no IP family.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let unspecified = match *body.first()? {
            AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            super::AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        let mut found = Self {
            destination: unspecified,
            length: *body.get(1)?,
            table: u32::from(*body.get(4)?),
            protocol: *body.get(5)?,
            scope: *body.get(6)?,
            action: *body.get(7)?,
            flags: number(body, 8)?,
            link: 0,
            gateway: None,
            metric: 0,
            source: None,
            next_hop: 0,
            other: false,
        };
        for (kind, value) in Attributes::new(body, BODY_LEN) {
            match kind {
                DESTINATION => found.destination = address(value).unwrap_or(unspecified),
                TABLE => found.table = number(value, 0).unwrap_or(found.table),
                LINK => found.link = number(value, 0).unwrap_or(0),
                GATEWAY => found.gateway = address(value),
                METRIC => found.metric = number(value, 0).unwrap_or(0),
                SOURCE => found.source = address(value),
                NEXT_HOP => found.next_hop = number(value, 0).unwrap_or(0),
                MULTIPATH | VIA => found.other = true,
                _ => {}
            }
        }
        Some(found)
    }
}
