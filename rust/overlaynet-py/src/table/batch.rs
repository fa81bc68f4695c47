//! Many lookups in one call, from a buffer of addresses into one of numbers.
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};

use super::entries::{Entries, Locked, NO_NUMBER};
use crate::addresses::Addresses;
use crate::prefix::Family;
use overlaynet_core::table::NO_SLOT;
use overlaynet_io::cpu;

/// So many addresses are looked up in one piece. Between pieces signals are handled, and writers have their turn.
const PIECE: usize = 1 << 20;

/// Fewer take less time than to let go of the interpreter and to take it again.
const WORTH_DETACHING: usize = 1 << 11;

/// How many slots are at hand at a time: they fit into the first cache, beside the addresses.
const SLOTS: usize = 1 << 10;

/// What a batch answers for each address.
#[derive(Clone, Copy)]
pub(super) enum Answer {
    /// The value, which must be a small integer, as an `int64`; this one where there is none.
    Number(i64),
    /// The slot, as a `uint32`; `uint32`'s greatest where there is none.
    Slot,
}

impl Answer {
    const fn bytes(self) -> usize {
        match self {
            Self::Number(_) => 8,
            Self::Slot => 4,
        }
    }
}

impl<P: Family> Locked<P> {
    /// A `memoryview` of an answer for each of `addresses`.
    pub(super) fn lookup_many<'py>(
        &self,
        addresses: &Bound<'py, PyAny>,
        stride: Option<usize>,
        answer: Answer,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = addresses.py();
        let addresses = Addresses::<P>::of(addresses, stride)?;
        let bytes = PyBytes::new_with(py, addresses.len() * answer.bytes(), |room| {
            for (at, room) in room.chunks_mut(PIECE * answer.bytes()).enumerate() {
                if at > 0 {
                    py.check_signals()?;
                }
                self.piece(py, &addresses, at * PIECE, answer, room)?;
            }
            Ok(())
        })?;
        let format = match answer {
            Answer::Number(_) => intern!(py, "q"),
            Answer::Slot => intern!(py, "I"),
        };
        PyMemoryView::from(&bytes)?.call_method1(intern!(py, "cast"), (format,))
    }

    fn piece(
        &self,
        py: Python<'_>,
        addresses: &Addresses<P>,
        start: usize,
        answer: Answer,
        room: &mut [u8],
    ) -> PyResult<()> {
        let done = if room.len() < WORTH_DETACHING * answer.bytes() {
            self.read(py).answer(addresses, start, answer, room)
        } else {
            py.detach(|| self.read_detached().answer(addresses, start, answer, room))
        };
        done.map_err(|slot| {
            let entry = self.read(py).entry(py, slot);
            let found = entry.map_or_else(String::new, |(prefix, object)| {
                let object = object
                    .bind(py)
                    .repr()
                    .map_or_else(|_| "?".to_owned(), |text| text.to_string());
                format!("{prefix}: {object:.80}: ")
            });
            PyValueError::new_err(format!(
                "{found}lookup_many wants ints from 0 to 2**32 - 2 for values; lookup_slots takes any"
            ))
        })
    }
}

impl<P: Family> Entries<P> {
    /// Answers into `room`; the error is the slot of a value that is no number.
    fn answer(
        &self,
        addresses: &Addresses<P>,
        start: usize,
        answer: Answer,
        room: &mut [u8],
    ) -> Result<(), u32> {
        let mut slots = [0; SLOTS];
        let mut part = addresses.reader(start);
        for room in room.chunks_mut(SLOTS * answer.bytes()) {
            let slots = &mut slots[..room.len() / answer.bytes()];
            cpu::lookup_slots(self.table().as_lookup(), part.next(slots.len()), slots);
            match answer {
                Answer::Slot => {
                    for (room, &slot) in room.as_chunks_mut().0.iter_mut().zip(&*slots) {
                        let slot = if slot == NO_SLOT { u32::MAX } else { slot };
                        *room = slot.to_ne_bytes();
                    }
                }
                Answer::Number(missing) => self.numbers_of(slots, missing, room)?,
            }
        }
        Ok(())
    }

    fn numbers_of(&self, slots: &[u32], missing: i64, room: &mut [u8]) -> Result<(), u32> {
        let numbers = self.numbers();
        let mut all = true;
        for (room, &slot) in room.as_chunks_mut().0.iter_mut().zip(slots) {
            let number = match numbers.get(slot as usize) {
                Some(&number) => {
                    all &= number != NO_NUMBER;
                    i64::from(number)
                }
                None => missing,
            };
            *room = number.to_ne_bytes();
        }
        if all {
            return Ok(());
        }
        let has_none = |slot: &&u32| numbers.get(**slot as usize) == Some(&NO_NUMBER);
        Err(slots.iter().find(has_none).copied().unwrap_or(NO_SLOT))
    }
}
