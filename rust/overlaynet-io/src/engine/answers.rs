//! How many ICMP errors the engine sends.
use std::time::{Duration, Instant};

/// How many ICMP errors may go out at once, and how many a second after that (the kernel's own `icmp_msgs_burst` and
/// `icmp_msgs_per_sec`, ip-sysctl).
const ANSWERS_AT_ONCE: u32 = 50;
const ANSWERS_A_SECOND: u32 = 1000;

/// Limits ICMP errors (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 (f)): a bucket of answers that fills with time.
#[derive(Debug)]
pub(super) struct Answers {
    left: u32,
    filled: Instant,
}

impl Answers {
    pub(super) fn new() -> Self {
        Self {
            left: ANSWERS_AT_ONCE,
            filled: Instant::now(),
        }
    }

    pub(super) fn may_answer(&mut self, now: Instant) -> bool {
        let step = Duration::from_secs(1) / ANSWERS_A_SECOND;
        let steps = now.saturating_duration_since(self.filled).as_micros() / step.as_micros();
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        if steps > 0 {
            self.left = self.left.saturating_add(steps).min(ANSWERS_AT_ONCE);
            self.filled += step.saturating_mul(steps);
        }
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        true
    }
}
