//! How long to look for more packets before the thread sleeps.
use std::time::{Duration, Instant};

/// How long the thread looks for more packets before it sleeps: about the way through a peer's stack and back.
const POLLING: Duration = Duration::from_micros(40);

/// Looking once takes microseconds: if it takes longer than this, somebody else had the processor meanwhile.
const LONG_LOOK: Duration = Duration::from_micros(100);

/// A turn that carried more than this is bulk, and likely so is the next.
const BULK_BYTES: usize = 8 << 10;

/// How long bulk is taken to go on.
const BULK_LASTS: Duration = Duration::from_millis(2);

/// How long a busy machine is taken to stay so at first, and at most.
const CONTENDED: Duration = Duration::from_millis(50);
const CONTENDED_MOST: Duration = Duration::from_secs(2);

/// Whether to look for more packets or to sleep.
#[derive(Debug, Default)]
pub(super) struct Patience {
    idle_since: Option<Instant>,
    looked: Option<Instant>,
    sleeps_until: Option<Instant>,
    contended_until: Option<Instant>,
    contended: Duration,
}

impl Patience {
    /// There was something, of so many bytes.
    pub(super) fn work(&mut self, bytes: usize) {
        self.idle_since = None;
        if bytes > BULK_BYTES {
            self.sleeps_until = self.sleeps_until.max(Some(Instant::now() + BULK_LASTS));
        }
    }

    /// Whether to look again.
    ///
    /// It does not yield meanwhile: a scheduler that takes a yield for the whole of the time slice (Linux 6.18) would let the thread
    /// wait for it when there is work. Where somebody else took the processor between two looks, the machine is busy: then a thread
    /// that sleeps is better off, since it is woken before the others. So it is in bulk, where more will come by itself, and the
    /// more at once the better.
    pub(super) fn look_again(&mut self) -> bool {
        let now = Instant::now();
        if self.sleeps_until.is_some_and(|until| now < until) {
            return false;
        }
        let since = *self.idle_since.get_or_insert(now);
        let looked = self.looked.replace(now).filter(|looked| *looked >= since);
        if looked.is_some_and(|looked| now - looked > LONG_LOOK) {
            // A machine that is still busy when it is looked at again is likely to stay so for longer.
            let again = self
                .contended_until
                .is_some_and(|until| now < until + self.contended);
            let twice = (self.contended * 2).min(CONTENDED_MOST);
            self.contended = if again { twice } else { CONTENDED };
            self.contended_until = Some(now + self.contended);
            self.sleeps_until = self.sleeps_until.max(self.contended_until);
            return false;
        }
        if now - since >= POLLING {
            return false;
        }
        std::hint::spin_loop();
        true
    }
}
