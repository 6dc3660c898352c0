//! The KV cache as a prefix cache: running sequences, resident prefixes, and prefixes parked in RAM.
//!
//! A request takes over the longest prefix that is already computed, wherever it is: in a running sequence or a
//! resident one, whose cells are shared and not copied, or parked in RAM, from where it is copied back. A finished
//! sequence stays resident for who asks on at once, and is copied to RAM after a moment in which nothing runs, before a
//! long prompt, or after a few steps of others.
//!
//! Attention reads every cell below the highest one in use, other sequences' cells included, so idle cells cost every
//! step as much as own ones. Copying a prefix back costs about what reading its cells in one or two steps does
//! (measured: 10 ms per 1,000 tokens of a 0.6 B model beside 6 ms a step). So when a request begins, resident prefixes
//! that RAM holds too are dropped; those that it does not hold yet leave when their cells or sequence ids are needed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapMut;

use crate::cells::Cells;
use crate::llama::Context;
use crate::prefix::{AdapterKey, Entry, EntryId, PrefixTree};
use crate::{SeqId, Token};

/// Sequences shorter than this are cheaper to compute again than to keep.
const WORTH_KEEPING: usize = 16;
/// A parked prefix must be this much longer than a resident one to be worth copying back, in tokens.
const WORTH_RESTORING: usize = 32;

/// A sequence handed to a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Its id.
    pub sequence: SeqId,
    /// Tokens whose KV it already holds.
    pub tokens: usize,
}

/// RAM for parked prefixes, shared by all models.
#[derive(Debug)]
pub(crate) struct ParkRoom {
    limit: u64,
    used: AtomicU64,
}

impl ParkRoom {
    /// Room for `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            used: AtomicU64::new(0),
        }
    }

    /// Takes `bytes` if they are free.
    fn take(&self, bytes: u64) -> bool {
        let take = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.limit);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct KvCache {
    cells: Cells,
    vacant: Vec<SeqId>,
    resident: PrefixTree<SeqId>,
    /// Resident prefixes that were not looked at for copying yet, with the step after which each was released; each
    /// is copied at most once.
    uncopied: VecDeque<(EntryId, u64)>,
    parked: PrefixTree<Arc<MmapMut>>,
    parked_bytes: u64,
    park_room: Arc<ParkRoom>,
    /// The model's state cannot be cut: only whole cached sequences can be continued.
    whole_only: bool,
}

impl KvCache {
    /// An empty cache over `cells` cells and `sequences` ids, with `park_room` for parked prefixes.
    pub fn new(cells: u32, sequences: u32, park_room: Arc<ParkRoom>, whole_only: bool) -> Self {
        Self {
            cells: Cells::new(cells),
            vacant: (0..sequences as SeqId).rev().collect(),
            resident: PrefixTree::default(),
            uncopied: VecDeque::new(),
            parked: PrefixTree::default(),
            parked_bytes: 0,
            park_room,
            whole_only,
        }
    }

    /// Whether a running sequence can lend its prefix to another.
    pub fn shares_running(&self) -> bool {
        !self.whole_only
    }

    /// Cells in use, by running sequences and resident prefixes.
    pub fn used(&self) -> usize {
        self.cells.used()
    }

    /// Bytes of parked prefixes.
    pub fn parked_bytes(&self) -> u64 {
        self.parked_bytes
    }

    /// Gives out a sequence that holds as much of `tokens` as is cached, but never all of it: the last token must be
    /// computed to give logits. `running` are the sequences of slots with the same adapters and what they hold.
    /// `None` when every sequence id is running.
    pub fn lease(
        &mut self,
        context: &mut Context,
        adapters: AdapterKey,
        tokens: &[Token],
        running: &[(SeqId, &[Token])],
    ) -> Option<Lease> {
        let wanted = &tokens[..tokens.len().saturating_sub(1)];
        let resident = self.best(&self.resident, adapters, wanted);
        let parked = self.best(&self.parked, adapters, wanted);
        if let Some((entry, _)) = resident {
            // Touched before anything is evicted, so that the eviction takes it last.
            self.resident.touch(entry);
        }
        let blob = parked.and_then(|(entry, shared)| {
            self.parked.touch(entry);
            let found = self.parked.get(entry)?;
            Some((Arc::clone(&found.place), found.tokens.len(), shared))
        });
        let neighbour = if !self.shares_running() {
            None
        } else {
            running
                .iter()
                .map(|(sequence, held)| (*sequence, shared_prefix(held, wanted)))
                .max_by_key(|(_, shared)| *shared)
                .filter(|(_, shared)| *shared > 0)
        };
        let sequence = self.take_id(context)?;
        let neighbour_tokens = neighbour.map_or(0, |(_, shared)| shared);
        // Looked at again: the id may have been the resident prefix's own.
        let resident = resident.filter(|(entry, shared)| {
            *shared > neighbour_tokens && self.resident.get(*entry).is_some()
        });
        let local_tokens = resident.map_or(neighbour_tokens, |(_, shared)| shared);
        let mut tokens = 0;
        if let Some((bytes, length, shared)) = blob
            && shared > local_tokens + WORTH_RESTORING
            && self.room_beside(resident.map(|(entry, _)| entry)) >= length
            && self.restore(context, sequence, &bytes, length, shared)
        {
            tokens = shared;
        } else if let Some((from, shared)) = resident
            .and_then(|(entry, shared)| Some((self.resident.get(entry)?.place, shared)))
            .or(neighbour)
        {
            context.share(from, sequence, shared);
            self.cells.share(from, sequence, shared);
            tokens = shared;
        }
        self.drop_copied(context);
        Some(Lease { sequence, tokens })
    }

    /// Cells that are free or can be freed by parking every resident prefix but `kept`. At least so many: cells that
    /// two prefixes share are not counted.
    pub fn room_beside(&self, kept: Option<EntryId>) -> usize {
        let residents = self.resident.ids().filter(|id| Some(*id) != kept);
        let own = residents
            .filter_map(|id| Some(self.cells.own(self.resident.get(id)?.place)))
            .sum::<usize>();
        self.cells.available() + own
    }

    /// How many of `tokens` a resident or parked prefix holds already.
    pub fn cached(&self, adapters: AdapterKey, tokens: &[Token]) -> usize {
        let resident = self
            .best(&self.resident, adapters, tokens)
            .map_or(0, |(_, shared)| shared);
        let parked = self
            .best(&self.parked, adapters, tokens)
            .map_or(0, |(_, shared)| shared);
        resident.max(parked)
    }

    /// Makes room for `tokens` more cells by parking resident prefixes; false if running sequences hold too many.
    pub fn make_room(&mut self, context: &mut Context, tokens: usize) -> bool {
        while self.cells.available() < tokens {
            let Some(oldest) = self.resident.oldest() else {
                return false;
            };
            self.park(context, oldest);
        }
        true
    }

    /// Parks the least recently used resident prefix; false if there is none. For when llama.cpp finds no cells
    /// although the books say there are.
    pub fn park_one(&mut self, context: &mut Context) -> bool {
        match self.resident.oldest() {
            Some(oldest) => {
                self.park(context, oldest);
                true
            }
            None => false,
        }
    }

    /// Books `tokens` more cells for a sequence that is about to be decoded.
    pub fn append(&mut self, sequence: SeqId, tokens: usize) -> bool {
        self.cells.append(sequence, tokens)
    }

    /// Takes a sequence back after its slot is done with it, in step `step`; it holds the KV of exactly `tokens` and
    /// stays as a resident prefix if that is worth it.
    pub fn release(
        &mut self,
        context: &mut Context,
        adapters: AdapterKey,
        sequence: SeqId,
        tokens: Vec<Token>,
        step: u64,
    ) {
        if tokens.len() < WORTH_KEEPING {
            self.forget(context, sequence);
            return;
        }
        if !self.whole_only {
            // A prefix of the new entry finds nothing that the new entry does not.
            for redundant in self.resident.prefixes_of(adapters, &tokens) {
                if let Some(entry) = self.resident.remove(redundant) {
                    self.forget(context, entry.place);
                }
            }
        }
        let id = self.resident.insert(adapters, tokens, sequence);
        self.uncopied.push_back((id, step));
    }

    /// Whether some prefix was not copied to RAM yet.
    pub fn has_uncopied(&self) -> bool {
        !self.uncopied.is_empty()
    }

    /// Copies one of the prefixes released lately to RAM, and keeps it resident. For when nothing runs.
    pub fn copy_one(&mut self, context: &mut Context) {
        if let Some((id, _)) = self.uncopied.pop_front() {
            self.ensure_copied(context, id);
        }
    }

    /// Parks one of the prefixes released up to step `until`, so that running sequences need not read over its cells;
    /// false if there is none. Those whose cells a running sequence holds too are passed over: parking them frees
    /// nothing.
    pub fn park_uncopied(&mut self, context: &mut Context, until: u64) -> bool {
        if self.park_room.limit == 0 {
            return false;
        }
        let Some(at) = self.uncopied.iter().position(|(id, released)| {
            *released <= until
                && self
                    .resident
                    .get(*id)
                    .is_none_or(|entry| self.cells.own(entry.place) >= WORTH_KEEPING)
        }) else {
            return false;
        };
        if let Some((id, _)) = self.uncopied.remove(at) {
            self.park(context, id);
        }
        true
    }

    /// Frees a sequence without keeping it.
    pub fn forget(&mut self, context: &mut Context, sequence: SeqId) {
        context.clear(sequence);
        self.cells.clear(sequence);
        self.vacant.push(sequence);
    }

    fn best<T>(
        &self,
        tree: &PrefixTree<T>,
        adapters: AdapterKey,
        tokens: &[Token],
    ) -> Option<(EntryId, usize)> {
        if self.whole_only {
            let whole = tree.prefixes_of(adapters, tokens).into_iter();
            whole
                .filter_map(|id| Some((id, tree.get(id)?.tokens.len())))
                .max_by_key(|(_, length)| *length)
        } else {
            tree.longest(adapters, tokens)
                .map(|found| (found.entry, found.tokens))
        }
    }

    fn take_id(&mut self, context: &mut Context) -> Option<SeqId> {
        if self.vacant.is_empty() {
            self.park_one(context);
        }
        self.vacant.pop()
    }

    fn restore(
        &mut self,
        context: &mut Context,
        sequence: SeqId,
        bytes: &[u8],
        length: usize,
        keep: usize,
    ) -> bool {
        if !self.make_room(context, length) || !context.restore(sequence, bytes) {
            context.clear(sequence);
            return false;
        }
        self.cells.append(sequence, length);
        if keep < length {
            context.truncate(sequence, keep);
            self.cells.truncate(sequence, keep);
        }
        true
    }

    fn ensure_copied(&mut self, context: &mut Context, id: EntryId) {
        if self
            .resident
            .get(id)
            .is_some_and(|entry| !self.is_copied(entry))
        {
            self.copy(context, id);
        }
    }

    fn park(&mut self, context: &mut Context, id: EntryId) {
        self.ensure_copied(context, id);
        if let Some(entry) = self.resident.remove(id) {
            self.forget(context, entry.place);
        }
    }

    /// Drops the resident prefixes that RAM holds too.
    fn drop_copied(&mut self, context: &mut Context) {
        let copied: Vec<EntryId> = self
            .resident
            .ids()
            .filter(|id| {
                self.resident
                    .get(*id)
                    .is_some_and(|entry| self.is_copied(entry))
            })
            .collect();
        for id in copied {
            if let Some(entry) = self.resident.remove(id) {
                self.forget(context, entry.place);
            }
        }
    }

    /// Whether RAM holds this prefix, all but a tail that is cheap to compute again.
    fn is_copied(&self, entry: &Entry<SeqId>) -> bool {
        let length = entry.tokens.len();
        let held = self
            .best(&self.parked, entry.adapters, &entry.tokens)
            .map_or(0, |(_, shared)| shared);
        if self.whole_only {
            held == length
        } else {
            held + WORTH_RESTORING.max(length / 16) >= length
        }
    }

    /// Copies a resident prefix to RAM if there is room for it.
    fn copy(&mut self, context: &mut Context, id: EntryId) {
        let Some(entry) = self.resident.get(id) else {
            return;
        };
        let (adapters, tokens) = (entry.adapters, entry.tokens.clone());
        let size = context.saved_size(entry.place);
        if size == 0 || size as u64 > self.park_room.limit {
            return;
        }
        let Some(mut bytes) = allocate(size) else {
            return;
        };
        if !context.save(entry.place, &mut bytes) {
            return;
        }
        if !self.whole_only {
            for redundant in self.parked.prefixes_of(adapters, &tokens) {
                self.drop_parked(redundant);
            }
        }
        // Own prefixes make room; those of other models do when their turn comes.
        while !self.park_room.take(bytes.len() as u64) {
            let Some(oldest) = self.parked.oldest() else {
                return;
            };
            self.drop_parked(oldest);
        }
        self.parked_bytes += bytes.len() as u64;
        self.parked.insert(adapters, tokens, Arc::new(bytes));
    }

    fn drop_parked(&mut self, id: EntryId) {
        if let Some(entry) = self.parked.remove(id) {
            let bytes = entry.place.len() as u64;
            self.parked_bytes -= bytes;
            self.park_room.give_back(bytes);
        }
    }
}

impl Drop for KvCache {
    fn drop(&mut self) {
        self.park_room.give_back(self.parked_bytes);
    }
}

/// Memory for a parked prefix. Most of the time of a copy is the first touch of its pages, so large ones are asked for
/// (measured: 85 to 120 ms per 1,000 tokens of a 0.6 B model with pages of 4 KiB).
fn allocate(size: usize) -> Option<MmapMut> {
    let bytes = MmapMut::map_anon(size).ok()?;
    #[cfg(target_os = "linux")]
    if let Err(error) = bytes.advise(memmap2::Advice::HugePage) {
        tracing::debug!(%error, "no huge pages for parked prefixes");
    }
    Some(bytes)
}

/// Tokens two sequences start with in common.
pub(crate) fn shared_prefix(a: &[Token], b: &[Token]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
