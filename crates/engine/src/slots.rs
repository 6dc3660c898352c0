//! The slots and the batch of a model that generates, on its thread ([`runner`](crate::runner)).
//!
//! Each step: free the slots of clients that went away, give free slots to waiting tasks, plan the batch
//! ([`schedule`]), compute it, and draw a token for every slot whose last token was computed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::counters::Counters;
use crate::kv::{KvCache, shared_prefix};
use crate::llama::{Adapter, Batch, Context, DecodeError};
use crate::prefix::AdapterKey;
use crate::runner::{Command, Workload};
use crate::schedule::{self, Share};
use crate::task::{Next, Task};
use crate::{EngineError, SeqId, Token};

/// A prefix that a neighbour is computing must save at least this much to be waited for, in tokens.
const WORTH_WAITING: usize = 32;
/// A prompt with this many tokens to compute waits for idle prefixes to be parked: each of its tokens would be
/// compared with theirs, which takes longer than the copy.
const LONG_PROMPT: usize = 256;
/// Steps of others in which an idle prefix stays resident. Reading over it costs about a quarter of its copy in each.
const LINGER: u64 = 4;
/// Cells that must be free per running answer before another task begins, so that it is not thrown out at once.
const HEADROOM: usize = 64;

/// A task in a slot.
struct Slot {
    task: Task,
    sequence: SeqId,
    /// Tokens of the task whose KV is in the sequence.
    computed: usize,
    /// Tokens it came with: the prompt, and after a preemption what was answered already.
    prompt: usize,
    /// Order of admission; the youngest is preempted first.
    admitted: u64,
}

impl Slot {
    fn pending(&self) -> usize {
        self.task.tokens.len() - self.computed
    }

    /// Whether more than the last token of its prompt is still to be computed.
    fn in_prompt(&self) -> bool {
        self.computed + 1 < self.prompt
    }

    fn held(&self) -> &[Token] {
        &self.task.tokens[..self.computed]
    }
}

/// See the module's documentation.
pub(crate) struct Slots {
    context: Context,
    kv: KvCache,
    slots: Vec<Option<Slot>>,
    waiting: VecDeque<Task>,
    batch: Batch,
    batch_size: usize,
    /// Adapter set of the last step and what the context has applied.
    adapters: AdapterKey,
    admissions: u64,
    /// Batches computed.
    steps: u64,
    counters: Arc<Counters>,
}

impl Slots {
    /// Slots over an empty context.
    pub fn new(
        context: Context,
        kv: KvCache,
        slots: u32,
        batch_size: u32,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            context,
            kv,
            slots: (0..slots).map(|_| None).collect(),
            waiting: VecDeque::new(),
            batch: Batch::default(),
            batch_size: batch_size as usize,
            adapters: 0,
            admissions: 0,
            steps: 0,
            counters,
        }
    }

    /// Frees what belongs to clients that went away.
    fn reap(&mut self) {
        let before = self.waiting.len();
        self.waiting.retain(|task| !task.is_abandoned());
        let mut cancelled = before - self.waiting.len();
        self.counters.leave_queue(cancelled);
        for index in 0..self.slots.len() {
            if self.slots[index]
                .as_ref()
                .is_some_and(|slot| slot.task.is_abandoned())
            {
                self.vacate(index);
                cancelled += 1;
            }
        }
        self.counters
            .cancelled
            .fetch_add(cancelled as u64, Ordering::Relaxed);
    }

    /// Takes a task out of its slot; its sequence becomes a resident prefix.
    fn vacate(&mut self, index: usize) -> Option<Task> {
        let slot = self.slots[index].take()?;
        let held = slot.held().to_vec();
        self.kv.release(
            &mut self.context,
            slot.task.adapters.key,
            slot.sequence,
            held,
            self.steps,
        );
        Some(slot.task)
    }

    fn admit(&mut self) {
        let mut skipped = VecDeque::new();
        while let Some(free) = self.slots.iter().position(Option::is_none) {
            let Some(mut task) = self.waiting.pop_front() else {
                break;
            };
            if self.better_to_wait(&task) {
                skipped.push_back(task);
                continue;
            }
            if !self.fits(&task) {
                // Nobody overtakes it, or a long prompt would wait for ever.
                skipped.push_back(task);
                break;
            }
            let running: Vec<(SeqId, &[Token])> = self
                .slots
                .iter()
                .flatten()
                .filter(|slot| slot.task.adapters.key == task.adapters.key)
                .map(|slot| (slot.sequence, slot.held()))
                .collect();
            let lease = self
                .kv
                .lease(&mut self.context, task.adapters.key, &task.tokens, &running);
            let Some(lease) = lease else {
                skipped.push_back(task);
                break;
            };
            self.counters.leave_queue(1);
            let prompt = task.tokens.len();
            task.start(lease.tokens);
            self.counters
                .cached_tokens
                .fetch_add(lease.tokens as u64, Ordering::Relaxed);
            self.admissions += 1;
            self.slots[free] = Some(Slot {
                task,
                sequence: lease.sequence,
                computed: lease.tokens,
                prompt,
                admitted: self.admissions,
            });
        }
        // What was passed over keeps its place before what was not looked at.
        while let Some(task) = skipped.pop_back() {
            self.waiting.push_front(task);
        }
    }

    /// Whether a task's cells can be had beside what runs, with some room for the answers. Alone it always fits.
    fn fits(&self, task: &Task) -> bool {
        let running = || self.slots.iter().flatten();
        if running().next().is_none() {
            return true;
        }
        // What it shares with a running sequence takes no cells; what is resident or parked may have to be copied.
        let key = task.adapters.key;
        let shared = running()
            .filter(|slot| self.kv.shares_running() && slot.task.adapters.key == key)
            .map(|slot| shared_prefix(slot.held(), &task.tokens))
            .max()
            .unwrap_or_default();
        let wanted: usize = running().map(|slot| slot.pending() + HEADROOM).sum();
        self.kv.room_beside(None) >= wanted + task.tokens.len() - shared + HEADROOM
    }

    /// Whether a running slot is about to compute a prefix of this task: the other choices of the same request, or
    /// many requests with one system prompt. Computing it once and sharing it is cheaper than computing it here too.
    fn better_to_wait(&self, task: &Task) -> bool {
        if !self.kv.shares_running() {
            return false;
        }
        let wanted = &task.tokens[..task.tokens.len() - 1];
        let (best, computed) = self
            .slots
            .iter()
            .flatten()
            .filter(|slot| slot.task.adapters.key == task.adapters.key)
            .map(|slot| {
                let shared = shared_prefix(&slot.task.tokens, wanted);
                (shared, shared.min(slot.computed))
            })
            .max()
            .unwrap_or_default();
        best >= computed + WORTH_WAITING
            && best >= self.kv.cached(task.adapters.key, wanted) + WORTH_WAITING
    }

    /// Parks idle prefixes where that is cheaper than reading over them: all before a long prompt, else those that
    /// lingered long enough, one in each step, because a copy is a stall for the running streams.
    fn park(&mut self) {
        let running = || self.slots.iter().flatten();
        let long = running().any(|slot| slot.in_prompt() && slot.pending() >= LONG_PROMPT);
        let streams = running().any(|slot| !slot.in_prompt());
        match (long, streams) {
            (true, false) => while self.kv.park_uncopied(&mut self.context, self.steps) {},
            (true, true) => drop(self.kv.park_uncopied(&mut self.context, self.steps)),
            (false, _) => {
                let until = self.steps.saturating_sub(LINGER);
                self.kv.park_uncopied(&mut self.context, until);
            }
        }
    }

    /// Slots that compute in this step: all of one adapter set, because llama.cpp applies adapters to a whole batch.
    fn pending(&mut self) -> Vec<Share> {
        let mut order: Vec<(u64, usize, AdapterKey)> = self
            .slots
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| {
                let slot = slot.as_ref()?;
                Some((slot.admitted, index, slot.task.adapters.key))
            })
            .collect();
        order.sort_unstable();
        let mut keys: Vec<AdapterKey> = order.iter().map(|(_, _, key)| *key).collect();
        keys.sort_unstable();
        keys.dedup();
        // The sets take turns: the next greater key, or the first one again.
        let Some(key) = keys
            .iter()
            .find(|key| **key > self.adapters)
            .or(keys.first())
            .copied()
        else {
            return Vec::new();
        };
        if key != self.adapters {
            let set = order
                .iter()
                .find(|(_, _, other)| *other == key)
                .and_then(|(_, index, _)| self.slots[*index].as_ref())
                .map(|slot| slot.task.adapters.adapters.clone())
                .unwrap_or_default();
            if let Err(error) = self.context.set_adapters(&set) {
                let with_them: Vec<usize> = order
                    .iter()
                    .filter(|(_, _, other)| *other == key)
                    .map(|(_, index, _)| *index)
                    .collect();
                self.fail(&with_them, &format!("{error:?}"));
                return Vec::new();
            }
            self.adapters = key;
        }
        order
            .into_iter()
            .filter(|(_, _, other)| *other == key)
            .filter_map(|(_, index, _)| {
                Some(Share {
                    slot: index,
                    tokens: self.slots[index].as_ref()?.pending(),
                })
            })
            .collect()
    }

    /// Computes one batch.
    fn step(&mut self) {
        let pending = self.pending();
        if pending.is_empty() {
            return;
        }
        let chunk = schedule::chunk(self.counters.prefill_speed(), self.batch_size);
        let mut shares = schedule::plan(&pending, self.batch_size, chunk);
        loop {
            let needed = shares.iter().map(|share| share.tokens).sum();
            if self.kv.make_room(&mut self.context, needed) {
                break;
            }
            let Some(preempted) = self.preempt() else {
                self.fail_all("the KV cache is full");
                return;
            };
            shares.retain(|share| share.slot != preempted);
        }
        self.batch.clear();
        let mut outputs = Vec::with_capacity(shares.len());
        for share in &shares {
            let Some(slot) = &self.slots[share.slot] else {
                continue;
            };
            let end = slot.computed + share.tokens;
            for position in slot.computed..end {
                let last = position + 1 == slot.task.tokens.len();
                let entry =
                    self.batch
                        .push(slot.task.tokens[position], position, slot.sequence, last);
                if last {
                    outputs.push((share.slot, entry));
                }
            }
            self.kv.append(slot.sequence, share.tokens);
        }
        let tokens = self.batch.len();
        if tokens == 0 {
            return;
        }
        let started = Instant::now();
        if let Err(error) = self.decode() {
            let slots: Vec<usize> = shares.iter().map(|share| share.slot).collect();
            self.fail(&slots, &error);
            return;
        }
        let prompts: usize = shares
            .iter()
            .filter(|share| self.slots[share.slot].as_ref().is_some_and(Slot::in_prompt))
            .map(|share| share.tokens)
            .sum();
        self.counters
            .record(prompts, tokens - prompts, outputs.len(), started.elapsed());
        self.steps += 1;
        for share in &shares {
            if let Some(slot) = &mut self.slots[share.slot] {
                slot.computed += share.tokens;
            }
        }
        for (index, entry) in outputs {
            self.draw(index, entry);
        }
    }

    fn decode(&mut self) -> Result<(), String> {
        loop {
            match self.context.decode(&mut self.batch) {
                Ok(()) => return Ok(()),
                // The books say there is room, so this is a need of llama.cpp's own; an idle prefix goes.
                Err(DecodeError::NoCells) if self.kv.park_one(&mut self.context) => {}
                Err(DecodeError::NoCells) => return Err("the KV cache is full".into()),
                Err(DecodeError::Failed(reason)) => return Err(reason),
            }
        }
    }

    /// Draws the next token of a slot whose logits are at `entry`.
    fn draw(&mut self, index: usize, entry: usize) {
        let model = Arc::clone(self.context.model());
        let Some(slot) = &mut self.slots[index] else {
            return;
        };
        let before = slot.task.tokens.len();
        let next = match self.context.logits(entry) {
            Some(logits) => slot.task.advance(&model, logits),
            None => Err(EngineError::Compute {
                reason: "no logits came back".into(),
            }),
        };
        let generated = slot.task.tokens.len() - before;
        self.counters
            .decode_tokens
            .fetch_add(generated as u64, Ordering::Relaxed);
        match next {
            Ok(Next::More) => {}
            Ok(Next::End) => {
                self.counters.completed.fetch_add(1, Ordering::Relaxed);
                self.vacate(index);
            }
            Err(error) => {
                slot.task.fail(error);
                self.vacate(index);
            }
        }
    }

    /// Puts the youngest running task back to the front of the queue, so that the others can go on; its KV stays as a
    /// prefix and can be parked. `None` when fewer than two tasks run.
    fn preempt(&mut self) -> Option<usize> {
        if self.slots.iter().flatten().count() < 2 {
            return None;
        }
        let (index, _) = self
            .slots
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| Some((index, slot.as_ref()?.admitted)))
            .max_by_key(|(_, admitted)| *admitted)?;
        let task = self.vacate(index)?;
        self.waiting.push_front(task);
        self.counters.queued.fetch_add(1, Ordering::Relaxed);
        Some(index)
    }

    fn fail_all(&mut self, reason: &str) {
        let all: Vec<usize> = (0..self.slots.len()).collect();
        self.fail(&all, reason);
    }

    /// Ends tasks whose KV cannot be trusted any more.
    fn fail(&mut self, slots: &[usize], reason: &str) {
        for index in slots {
            if let Some(slot) = self.slots[*index].take() {
                slot.task.fail(EngineError::Compute {
                    reason: reason.to_owned(),
                });
                self.kv.forget(&mut self.context, slot.sequence);
            }
        }
    }
}

impl Workload for Slots {
    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.slots.iter().all(Option::is_none)
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Run(tasks) => self.waiting.extend(tasks),
            Command::LoadAdapter(path, reply) => {
                // Who asked may have gone; the adapter goes with the answer then.
                let _ = reply.send(Adapter::load(self.context.model(), &path));
            }
            other => other.refuse(&self.counters),
        }
    }

    fn turn(&mut self) {
        self.reap();
        self.admit();
        self.park();
        self.step();
    }

    /// Copies idle prefixes to RAM.
    fn has_leisure(&self) -> bool {
        self.kv.has_uncopied()
    }

    fn leisure(&mut self) {
        self.kv.copy_one(&mut self.context);
    }

    fn refuse_waiting(&mut self) {
        self.counters.leave_queue(self.waiting.len());
        for task in self.waiting.drain(..) {
            task.fail(EngineError::Unloaded);
        }
    }

    fn refuse_running(&mut self) {
        for slot in self.slots.iter_mut().filter_map(Option::take) {
            slot.task.fail(EngineError::Unloaded);
        }
    }

    fn publish(&self) {
        let busy = self.slots.iter().flatten().count();
        self.counters
            .slots_busy
            .store(busy as u32, Ordering::Relaxed);
        self.counters
            .kv_used
            .store(self.kv.used() as u32, Ordering::Relaxed);
        self.counters
            .parked_bytes
            .store(self.kv.parked_bytes(), Ordering::Relaxed);
    }
}
