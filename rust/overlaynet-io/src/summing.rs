//! The checksum's loop, compiled for what this processor has.
use overlaynet_core::wire::checksum::{Copying, Sum, Summing};

/// The fastest way to add words to a sum here.
#[must_use]
pub fn fastest() -> Summing {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        return plus_where_there_is_avx2;
    }
    Sum::plus
}

/// The fastest way to copy bytes and add their words to a sum here.
#[must_use]
pub fn fastest_copying() -> Copying {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        return plus_copied_where_there_is_avx2;
    }
    Sum::plus_copied
}

/// Only [`fastest_copying`] hands it out, and only where there is AVX2.
#[cfg(target_arch = "x86_64")]
fn plus_copied_where_there_is_avx2(sum: Sum, bytes: &[u8], to: &mut [u8]) -> Sum {
    #[target_feature(enable = "avx2")]
    fn plus_copied(sum: Sum, bytes: &[u8], to: &mut [u8]) -> Sum {
        sum.plus_copied(bytes, to)
    }
    // SAFETY: the processor has AVX2, or this function would not have been handed out.
    unsafe { plus_copied(sum, bytes, to) }
}

/// Only [`fastest`] hands it out, and only where there is AVX2.
#[cfg(target_arch = "x86_64")]
fn plus_where_there_is_avx2(sum: Sum, bytes: &[u8]) -> Sum {
    #[target_feature(enable = "avx2")]
    fn plus(sum: Sum, bytes: &[u8]) -> Sum {
        sum.plus(bytes)
    }
    // SAFETY: the processor has AVX2, or this function would not have been handed out.
    unsafe { plus(sum, bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_way_says_what_the_plain_one_says() {
        let bytes: Vec<u8> = (0..4096_u32).map(|at| (at * at / 7) as u8 | 0x80).collect();
        for start in 0..40 {
            for len in [0, 1, 3, 20, 31, 32, 33, 63, 64, 65, 127, 1420, 1421, 4000] {
                let part = &bytes[start..start + len];
                let begun = Sum::ZERO.plus_word(0xabcd);
                assert_eq!(
                    fastest()(begun, part).fold(),
                    begun.plus(part).fold(),
                    "{start}, {len}"
                );
                let mut copy = vec![0; len];
                assert_eq!(
                    fastest_copying()(begun, part, &mut copy).fold(),
                    begun.plus(part).fold(),
                    "{start}, {len}"
                );
                assert_eq!(copy, part);
            }
        }
    }

    #[test]
    #[ignore = "a measurement, for eyes"]
    fn how_long_it_takes() {
        let bytes = vec![0xa5_u8; 1 << 16];
        let mut copy = vec![0_u8; 1 << 16];
        let mut measure = |name: &str, one: &mut dyn FnMut(&[u8], &mut [u8]) -> u16| {
            let mut best = f64::MAX;
            for _ in 0..200 {
                let begun = std::time::Instant::now();
                let mut sum = 0;
                for (part, copy) in bytes.chunks(1420).zip(copy.chunks_mut(1420)) {
                    sum += u32::from(one(std::hint::black_box(part), std::hint::black_box(copy)));
                }
                std::hint::black_box(sum);
                best = best.min(begun.elapsed().as_secs_f64());
            }
            println!("{name}: {:.2} us for 64 KiB", best * 1e6);
        };
        for (name, plus) in [("plain", Sum::plus as Summing), ("fastest", fastest())] {
            measure(name, &mut |part, _| plus(Sum::ZERO, part).fold());
        }
        for (name, plus) in [
            ("plain copying", Sum::plus_copied as Copying),
            ("fastest copying", fastest_copying()),
        ] {
            measure(name, &mut |part, copy| plus(Sum::ZERO, part, copy).fold());
        }
        measure("copying alone", &mut |part, copy| {
            copy.copy_from_slice(part);
            0
        });
    }
}
