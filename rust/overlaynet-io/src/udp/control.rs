//! The control messages of a datagram: where it is to be cut, and where it was.

/// Room for the control messages of one datagram, in words of eight bytes.
pub(super) const CONTROL_WORDS: usize = 8;

/// Writes a control message that tells where to cut (`UDP_SEGMENT`, udp(7)); its length with padding.
pub(super) fn write_segment(control: &mut [u64; CONTROL_WORDS], segment: usize) -> usize {
    const VALUE_BYTES: libc::c_uint = size_of::<u16>() as libc::c_uint;
    // SAFETY: CMSG_SPACE only computes.
    const SPACE: usize = unsafe { libc::CMSG_SPACE(VALUE_BYTES) } as usize;
    const { assert!(SPACE <= size_of::<[u64; CONTROL_WORDS]>()) };
    let header: *mut libc::cmsghdr = control.as_mut_ptr().cast();
    // SAFETY: the words are aligned for a `cmsghdr`, and there is room for it and a `u16` behind it (asserted).
    unsafe {
        (*header).cmsg_level = libc::SOL_UDP;
        (*header).cmsg_type = libc::UDP_SEGMENT;
        (*header).cmsg_len = libc::CMSG_LEN(VALUE_BYTES) as _;
        libc::CMSG_DATA(header)
            .cast::<u16>()
            .write_unaligned(segment as u16);
    }
    SPACE
}

/// The length of each datagram but the last, as the kernel's control messages tell it (`UDP_GRO`); 0 if there is one.
pub(super) fn read_segment(header: &libc::msghdr) -> usize {
    // SAFETY: the kernel wrote `msg_controllen` bytes of control messages, which the macros walk; `header` and its control buffer
    // are alive.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while !control.is_null() {
            if (*control).cmsg_level == libc::SOL_UDP && (*control).cmsg_type == libc::UDP_GRO {
                let value = libc::CMSG_DATA(control).cast::<libc::c_int>().read_unaligned();
                return usize::try_from(value).unwrap_or(0);
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
    0
}
