//! Accounting of KV cells. Pure: it mirrors what llama.cpp's unified cache does when sequences share a prefix.
//!
//! A cell holds the keys and values of one token at one position and may belong to several sequences. The scheduler
//! must know how many cells are free before it builds a batch; llama.cpp only says that there were not enough.

use std::collections::HashMap;

use crate::SeqId;

/// Which cells each sequence holds, and how many sequences hold each cell.
#[derive(Debug)]
pub(crate) struct Cells {
    holders: Vec<u16>,
    free: Vec<u32>,
    sequences: HashMap<SeqId, Vec<u32>>,
}

impl Cells {
    /// `total` free cells.
    pub fn new(total: u32) -> Self {
        Self {
            holders: vec![0; total as usize],
            free: (0..total).rev().collect(),
            sequences: HashMap::new(),
        }
    }

    /// Cells there are.
    pub fn total(&self) -> usize {
        self.holders.len()
    }

    /// Cells nobody holds.
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// Cells somebody holds.
    pub fn used(&self) -> usize {
        self.total() - self.available()
    }

    /// Tokens a sequence holds.
    pub fn len(&self, sequence: SeqId) -> usize {
        self.sequences.get(&sequence).map_or(0, Vec::len)
    }

    /// Cells that this sequence alone holds.
    pub fn own(&self, sequence: SeqId) -> usize {
        self.sequences.get(&sequence).map_or(0, |cells| {
            cells
                .iter()
                .filter(|cell| self.holders[**cell as usize] == 1)
                .count()
        })
    }

    /// Appends `tokens` fresh cells to a sequence; false, and nothing changed, if there are not enough.
    pub fn append(&mut self, sequence: SeqId, tokens: usize) -> bool {
        if tokens > self.free.len() {
            return false;
        }
        let cells = self.sequences.entry(sequence).or_default();
        for cell in self.free.split_off(self.free.len() - tokens) {
            self.holders[cell as usize] = 1;
            cells.push(cell);
        }
        true
    }

    /// Gives the first `tokens` cells of `from` to `to` as well, which must hold nothing.
    pub fn share(&mut self, from: SeqId, to: SeqId, tokens: usize) {
        debug_assert_eq!(self.len(to), 0);
        let shared: Vec<u32> = self
            .sequences
            .get(&from)
            .map(|cells| cells[..tokens.min(cells.len())].to_vec())
            .unwrap_or_default();
        for cell in &shared {
            self.holders[*cell as usize] += 1;
        }
        self.sequences.insert(to, shared);
    }

    /// Cuts a sequence to its first `tokens` cells.
    pub fn truncate(&mut self, sequence: SeqId, tokens: usize) {
        let Some(cells) = self.sequences.get_mut(&sequence) else {
            return;
        };
        for cell in cells.drain(tokens.min(cells.len())..) {
            let holders = &mut self.holders[cell as usize];
            *holders -= 1;
            if *holders == 0 {
                self.free.push(cell);
            }
        }
        if cells.is_empty() {
            self.sequences.remove(&sequence);
        }
    }

    /// Frees a sequence.
    pub fn clear(&mut self, sequence: SeqId) {
        self.truncate(sequence, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Any order of operations keeps the books: used + available = total, and a cell is free exactly when no
        /// sequence holds it.
        #[test]
        fn books_balance(steps in prop::collection::vec((0u8..4, 0i32..4, 0i32..4, 0usize..12), 0..200)) {
            let mut cells = Cells::new(40);
            for (what, a, b, n) in steps {
                match what {
                    0 => {
                        let (before, had) = (cells.len(a), cells.available());
                        let done = cells.append(a, n);
                        prop_assert_eq!(done, n <= had);
                        prop_assert_eq!(cells.len(a), if done { before + n } else { before });
                    }
                    1 if a != b && cells.len(b) == 0 => {
                        let had = cells.available();
                        cells.share(a, b, n);
                        prop_assert_eq!(cells.available(), had, "sharing takes no cell");
                        prop_assert_eq!(cells.len(b), n.min(cells.len(a)));
                    }
                    2 => cells.truncate(a, n),
                    3 => cells.clear(a),
                    _ => {}
                }
                let mut held = vec![0u16; cells.total()];
                for sequence in cells.sequences.values() {
                    for cell in sequence {
                        held[*cell as usize] += 1;
                    }
                }
                prop_assert_eq!(&held, &cells.holders);
                prop_assert_eq!(held.iter().filter(|n| **n == 0).count(), cells.available());
                prop_assert_eq!(cells.used() + cells.available(), cells.total());
            }
        }
    }
}
