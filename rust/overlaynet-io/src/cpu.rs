//! The prefix table's batch lookup, compiled for what this processor has.
//!
//! A lookup counts the bits of a node's map, which plain x86-64 does in a dozen instructions and every processor since 2008 in one;
//! shifts by a variable are one instruction instead of two since 2013. What there is is asked once a batch.
use overlaynet_core::address::Packed;
use overlaynet_core::prefix::Prefix;
use overlaynet_core::table::Lookup;

/// [`Lookup::slots`], as fast as this processor can.
pub fn lookup_slots<P: Prefix, A: Packed<P::Address>>(
    lookup: &Lookup<P>,
    addresses: &[A],
    slots: &mut [u32],
) {
    #[cfg(target_arch = "x86_64")]
    if has_popcnt_and_bmi() {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { with_popcnt_and_bmi(lookup, addresses, slots) };
    }
    lookup.slots(addresses, slots);
}

#[cfg(target_arch = "x86_64")]
fn has_popcnt_and_bmi() -> bool {
    std::arch::is_x86_feature_detected!("popcnt")
        && std::arch::is_x86_feature_detected!("bmi1")
        && std::arch::is_x86_feature_detected!("bmi2")
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "popcnt,bmi1,bmi2")]
fn with_popcnt_and_bmi<P: Prefix, A: Packed<P::Address>>(
    lookup: &Lookup<P>,
    addresses: &[A],
    slots: &mut [u32],
) {
    lookup.slots(addresses, slots);
}

#[cfg(test)]
mod tests {
    use super::*;
    use overlaynet_core::prefix::Ipv4Prefix;
    use overlaynet_core::table::PrefixTable;
    use std::net::Ipv4Addr;

    #[test]
    fn what_is_compiled_for_this_processor_finds_what_the_plain_one_finds() {
        let prefixes = (0..3000_u32).map(|at| {
            let address = Ipv4Addr::from_bits(at.wrapping_mul(0x9e37_79b9));
            Ipv4Prefix::new_truncated(address, 8 + (at % 25) as u8).expect("at most 32")
        });
        let table: PrefixTable<Ipv4Prefix, ()> = prefixes.map(|prefix| (prefix, ())).collect();
        let addresses: Vec<u32> = (0..100_000_u32).map(|at| at.wrapping_mul(0x85eb_ca6b)).collect();
        let (mut plain, mut fast) = (vec![0; addresses.len()], vec![1; addresses.len()]);
        table.lookup_slots(&addresses, &mut plain);
        lookup_slots(table.as_lookup(), &addresses, &mut fast);
        assert!(plain == fast);
    }
}
