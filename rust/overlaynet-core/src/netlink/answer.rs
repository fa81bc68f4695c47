//! The kernel's answers to requests: an acknowledgement, an error, or the end of a dump.
use super::{Attributes, DUMP_INTERRUPTED, HEADER_LEN, Message, number};

const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLM_F_CAPPED`: of the request only the header is repeated.
const CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS`: attributes follow that explain.
const EXPLAINED: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`: the explanation in words.
const WORDS: u16 = 1;

/// The end of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The number of the request.
    pub sequence: u32,
    /// The errno, positive; 0 is success.
    pub errno: u32,
    /// What the kernel says of it, in words; often empty.
    pub words: &'a [u8],
    /// Whether it ends a dump.
    pub done: bool,
    /// Whether the dump that it ends was disturbed by a change.
    pub interrupted: bool,
}

impl<'a> Answer<'a> {
    /// The answer in a message; `None` for any other message.
    #[must_use]
    pub fn parse(message: &Message<'a>) -> Option<Self> {
        let done = match message.header.kind {
            ERROR => false,
            DONE => true,
            _ => return None,
        };
        // Some ends of dumps carry no number at all.
        let errno = number(message.body, 0).unwrap_or(0).wrapping_neg();
        let flags = message.header.flags;
        let words = if flags & EXPLAINED == 0 {
            &[][..]
        } else {
            // An error repeats the request after its number: whole, or its header alone (Documentation/userspace-api/netlink).
            let repeated = if done {
                0
            } else if flags & CAPPED != 0 || errno == 0 {
                HEADER_LEN
            } else {
                usize::try_from(number(message.body, 4).unwrap_or(0)).unwrap_or(usize::MAX)
            };
            let found =
                Attributes::new(message.body, repeated.saturating_add(4)).find(|&(kind, _)| kind == WORDS);
            found.map_or(&[][..], |(_, words)| words.strip_suffix(&[0]).unwrap_or(words))
        };
        Some(Self {
            sequence: message.header.sequence,
            errno,
            words,
            done,
            interrupted: flags & DUMP_INTERRUPTED != 0,
        })
    }
}
