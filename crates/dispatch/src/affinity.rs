//! Which machine holds the start of a prompt in its prefix cache, as far as this machine saw: a conversation goes back to
//! where it was answered, and does not have to be read again.
//!
//! Prompts are cut into pieces, and each piece is known by the hash of everything up to its end, as in the block hashes of
//! vLLM's automatic prefix caching. Only hashes are kept, never a text. The machine itself knows better (its cache may have
//! dropped the prefix since); a wrong guess costs time and nothing else.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use hearth_protocol::household::NodeId;

/// Bytes of a piece. What is shorter belongs to nobody.
pub const PIECE: usize = 256;
/// Pieces of a prompt that are looked at: 512 KiB, about the longest context there is.
const PIECES: usize = 2048;
/// Machines remembered per prefix; a system prompt of many conversations is held by several.
const HOLDERS: usize = 4;

/// Bounded memory of who was given which prompts. The prefix used longest ago goes first.
#[derive(Debug, Clone)]
pub struct Affinity {
    capacity: usize,
    prefixes: HashMap<u64, Prefix>,
    /// Prefixes by their last use.
    uses: BTreeMap<u64, u64>,
    /// Counts uses.
    clock: u64,
}

#[derive(Debug, Clone)]
struct Prefix {
    used: u64,
    /// Last given first.
    holders: Vec<NodeId>,
}

impl Affinity {
    /// Remembers at most `capacity` pieces (about 100 bytes of memory each).
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            prefixes: HashMap::new(),
            uses: BTreeMap::new(),
            clock: 0,
        }
    }

    /// `node` answered this prompt (with its answer, if that is known: the next prompt of the conversation starts so).
    pub fn note(&mut self, model: &str, prompt: &str, node: NodeId) {
        // From the end, so that of one prompt the longest prefixes are forgotten first.
        let hashes: Vec<u64> = hashes(model, prompt).collect();
        for hash in hashes.into_iter().rev() {
            self.clock += 1;
            let prefix = self.prefixes.entry(hash).or_insert_with(|| Prefix {
                used: 0,
                holders: Vec::with_capacity(1),
            });
            self.uses.remove(&prefix.used);
            prefix.used = self.clock;
            self.uses.insert(self.clock, hash);
            prefix.holders.retain(|holder| *holder != node);
            prefix.holders.truncate(HOLDERS - 1);
            prefix.holders.insert(0, node);
        }
        while self.prefixes.len() > self.capacity {
            let Some((_, hash)) = self.uses.pop_first() else {
                break;
            };
            self.prefixes.remove(&hash);
        }
    }

    /// Who holds how many bytes of the start of this prompt. Machines that hold nothing are not named.
    pub fn find(&self, model: &str, prompt: &str) -> Vec<(NodeId, usize)> {
        let mut found: Vec<(NodeId, usize)> = Vec::new();
        for (piece, hash) in hashes(model, prompt).enumerate() {
            let Some(prefix) = self.prefixes.get(&hash) else {
                break;
            };
            let bytes = (piece + 1) * PIECE;
            for holder in &prefix.holders {
                match found.iter_mut().find(|(node, _)| node == holder) {
                    Some((_, longest)) => *longest = bytes,
                    None => found.push((*holder, bytes)),
                }
            }
        }
        found
    }

    /// This machine restarted or left: what it held is gone.
    pub fn forget(&mut self, node: NodeId) {
        let uses = &mut self.uses;
        self.prefixes.retain(|_, prefix| {
            prefix.holders.retain(|holder| *holder != node);
            if prefix.holders.is_empty() {
                uses.remove(&prefix.used);
            }
            !prefix.holders.is_empty()
        });
    }
}

/// Hashes of the whole pieces of a prompt, each over everything before it too.
fn hashes(model: &str, prompt: &str) -> impl Iterator<Item = u64> {
    let mut hasher = DefaultHasher::new();
    model.hash(&mut hasher);
    prompt
        .as_bytes()
        .chunks_exact(PIECE)
        .take(PIECES)
        .map(move |piece| {
            piece.hash(&mut hasher);
            hasher.finish()
        })
}
