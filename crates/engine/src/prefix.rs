//! A radix tree over token sequences: which cached sequence shares the longest prefix with a prompt. Pure.
//!
//! One tree holds the sequences that are resident in the KV cache and another the ones parked in RAM. Each adapter set
//! has its own root, because the same tokens give other keys and values under other adapters. The idea of sharing KV
//! through a radix tree is from SGLang (Zheng et al., 2023, arXiv:2312.07104).

use std::collections::{BTreeMap, HashMap};

use crate::Token;

/// Identifies an adapter set: equal keys mean that KV may be shared. 0 is no adapter.
pub(crate) type AdapterKey = u64;

/// Names an entry of one tree; never used twice.
pub(crate) type EntryId = u64;

/// A cached sequence.
#[derive(Debug)]
pub(crate) struct Entry<T> {
    /// Under which adapters its KV was computed.
    pub adapters: AdapterKey,
    /// Its tokens.
    pub tokens: Vec<Token>,
    /// Where its KV is.
    pub place: T,
    used: u64,
}

/// The longest shared prefix found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Match {
    /// An entry that has it; the most recently used one.
    pub entry: EntryId,
    /// Its length in tokens.
    pub tokens: usize,
}

#[derive(Debug, Default)]
struct Node {
    edge: Vec<Token>,
    parent: usize,
    children: HashMap<Token, usize>,
    entries: Vec<EntryId>,
}

/// Cached sequences by prefix and by last use.
#[derive(Debug)]
pub(crate) struct PrefixTree<T> {
    nodes: Vec<Node>,
    vacant: Vec<usize>,
    roots: HashMap<AdapterKey, usize>,
    entries: HashMap<EntryId, (Entry<T>, usize)>,
    by_use: BTreeMap<u64, EntryId>,
    clock: u64,
}

impl<T> Default for PrefixTree<T> {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            vacant: Vec::new(),
            roots: HashMap::new(),
            entries: HashMap::new(),
            by_use: BTreeMap::new(),
            clock: 0,
        }
    }
}

impl<T> PrefixTree<T> {
    #[cfg(test)]
    fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entry of that id.
    pub fn get(&self, id: EntryId) -> Option<&Entry<T>> {
        self.entries.get(&id).map(|(entry, _)| entry)
    }

    /// Adds a sequence as the most recently used one.
    pub fn insert(&mut self, adapters: AdapterKey, tokens: Vec<Token>, place: T) -> EntryId {
        self.clock += 1;
        let id = self.clock;
        let node = self.descend(adapters, &tokens);
        self.nodes[node].entries.push(id);
        self.by_use.insert(id, id);
        self.entries.insert(
            id,
            (
                Entry {
                    adapters,
                    tokens,
                    place,
                    used: id,
                },
                node,
            ),
        );
        id
    }

    /// Marks an entry as the most recently used one.
    pub fn touch(&mut self, id: EntryId) {
        if let Some((entry, _)) = self.entries.get_mut(&id) {
            self.clock += 1;
            self.by_use.remove(&entry.used);
            entry.used = self.clock;
            self.by_use.insert(self.clock, id);
        }
    }

    /// All entries, least recently used first.
    pub fn ids(&self) -> impl Iterator<Item = EntryId> + '_ {
        self.by_use.values().copied()
    }

    /// The least recently used entry.
    pub fn oldest(&self) -> Option<EntryId> {
        self.by_use.values().next().copied()
    }

    /// Takes an entry out.
    pub fn remove(&mut self, id: EntryId) -> Option<Entry<T>> {
        let (entry, node) = self.entries.remove(&id)?;
        self.by_use.remove(&entry.used);
        self.nodes[node].entries.retain(|other| *other != id);
        self.prune(node, entry.adapters);
        Some(entry)
    }

    /// The longest prefix of `tokens` that some entry starts with; `None` if not even one token is shared.
    pub fn longest(&self, adapters: AdapterKey, tokens: &[Token]) -> Option<Match> {
        let mut node = *self.roots.get(&adapters)?;
        let mut shared = 0;
        while let Some(child) = tokens
            .get(shared)
            .and_then(|token| self.nodes[node].children.get(token))
        {
            let edge = &self.nodes[*child].edge;
            let same = edge
                .iter()
                .zip(&tokens[shared..])
                .take_while(|(a, b)| a == b)
                .count();
            shared += same;
            node = *child;
            if same < edge.len() {
                break;
            }
        }
        if shared == 0 {
            return None;
        }
        self.newest_below(node).map(|entry| Match {
            entry,
            tokens: shared,
        })
    }

    /// Entries that are a prefix of `tokens` (the whole entry, not a part of it).
    pub fn prefixes_of(&self, adapters: AdapterKey, tokens: &[Token]) -> Vec<EntryId> {
        let mut found = Vec::new();
        let Some(mut node) = self.roots.get(&adapters).copied() else {
            return found;
        };
        let mut at = 0;
        loop {
            found.extend(&self.nodes[node].entries);
            let Some(child) = tokens
                .get(at)
                .and_then(|token| self.nodes[node].children.get(token))
            else {
                break;
            };
            let edge = &self.nodes[*child].edge;
            if !tokens[at..].starts_with(edge) {
                break;
            }
            at += edge.len();
            node = *child;
        }
        found
    }

    /// Every node on the way down has an entry somewhere below it, because `prune` removes those that have none.
    fn newest_below(&self, node: usize) -> Option<EntryId> {
        let mut stack = vec![node];
        let mut newest: Option<(u64, EntryId)> = None;
        while let Some(node) = stack.pop() {
            let node = &self.nodes[node];
            for id in &node.entries {
                let used = self.entries[id].0.used;
                if newest.is_none_or(|(best, _)| used > best) {
                    newest = Some((used, *id));
                }
            }
            stack.extend(node.children.values());
        }
        newest.map(|(_, id)| id)
    }

    fn new_node(&mut self, edge: Vec<Token>, parent: usize) -> usize {
        let node = Node {
            edge,
            parent,
            ..Node::default()
        };
        if let Some(index) = self.vacant.pop() {
            self.nodes[index] = node;
            index
        } else {
            self.nodes.push(node);
            self.nodes.len() - 1
        }
    }

    /// The node where `tokens` end, made if need be by splitting an edge or adding a leaf.
    fn descend(&mut self, adapters: AdapterKey, tokens: &[Token]) -> usize {
        let mut node = match self.roots.get(&adapters) {
            Some(root) => *root,
            None => {
                let root = self.new_node(Vec::new(), usize::MAX);
                self.roots.insert(adapters, root);
                root
            }
        };
        let mut rest = tokens;
        while let Some(first) = rest.first() {
            let Some(child) = self.nodes[node].children.get(first).copied() else {
                let leaf = self.new_node(rest.to_vec(), node);
                self.nodes[node].children.insert(*first, leaf);
                return leaf;
            };
            let same = self.nodes[child]
                .edge
                .iter()
                .zip(rest)
                .take_while(|(a, b)| a == b)
                .count();
            if same < self.nodes[child].edge.len() {
                let tail = self.nodes[child].edge.split_off(same);
                let head = std::mem::take(&mut self.nodes[child].edge);
                let middle = self.new_node(head, node);
                self.nodes[node].children.insert(*first, middle);
                self.nodes[middle].children.insert(tail[0], child);
                self.nodes[child].edge = tail;
                self.nodes[child].parent = middle;
                node = middle;
            } else {
                node = child;
            }
            rest = &rest[same..];
        }
        node
    }

    /// Removes nodes that lead to no entry, and joins a node with its only child.
    fn prune(&mut self, mut node: usize, adapters: AdapterKey) {
        while self.nodes[node].entries.is_empty() {
            let parent = self.nodes[node].parent;
            match (self.nodes[node].children.len(), parent) {
                (0, usize::MAX) => {
                    self.roots.remove(&adapters);
                    self.vacant.push(node);
                    return;
                }
                (0, _) => {
                    let first = self.nodes[node].edge[0];
                    self.nodes[parent].children.remove(&first);
                    self.vacant.push(node);
                    node = parent;
                }
                (1, parent) if parent != usize::MAX => {
                    let child = self.nodes[node]
                        .children
                        .values()
                        .copied()
                        .next()
                        .unwrap_or(node);
                    let mut edge = std::mem::take(&mut self.nodes[node].edge);
                    let first = edge[0];
                    edge.append(&mut self.nodes[child].edge);
                    self.nodes[child].edge = edge;
                    self.nodes[child].parent = parent;
                    self.nodes[parent].children.insert(first, child);
                    self.vacant.push(node);
                    return;
                }
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shared(a: &[Token], b: &[Token]) -> usize {
        a.iter().zip(b).take_while(|(a, b)| a == b).count()
    }

    proptest! {
        /// The tree answers as a plain list of sequences would, after any inserts, removals and touches.
        #[test]
        fn agrees_with_a_list(
            steps in prop::collection::vec(
                (0u8..4, 0u64..2, prop::collection::vec(0i32..3, 0..8), any::<prop::sample::Index>()), 1..120)
        ) {
            let mut tree = PrefixTree::default();
            // Least recently used first.
            let mut list: Vec<(EntryId, AdapterKey, Vec<Token>)> = Vec::new();
            for (what, adapters, tokens, index) in steps {
                match what {
                    0 | 1 => {
                        let id = tree.insert(adapters, tokens.clone(), ());
                        list.push((id, adapters, tokens));
                    }
                    2 if !list.is_empty() => {
                        let (id, _, tokens) = list.remove(index.index(list.len()));
                        prop_assert_eq!(tree.remove(id).map(|entry| entry.tokens), Some(tokens));
                    }
                    3 if !list.is_empty() => {
                        let entry = list.remove(index.index(list.len()));
                        tree.touch(entry.0);
                        list.push(entry);
                    }
                    _ => {}
                }
                prop_assert_eq!(tree.len(), list.len());
                prop_assert_eq!(tree.oldest(), list.first().map(|entry| entry.0));
            }
            for query in [vec![], vec![0], vec![0, 1, 2], vec![1, 1, 1, 1], vec![2, 0, 2, 0, 1], vec![0, 0, 0, 0, 0, 0]] {
                for adapters in 0..2 {
                    let best = list.iter().filter(|entry| entry.1 == adapters)
                        .map(|entry| shared(&entry.2, &query)).max().unwrap_or(0);
                    let newest = list.iter().rev()
                        .find(|entry| entry.1 == adapters && shared(&entry.2, &query) == best);
                    let expected = newest.filter(|_| best > 0).map(|entry| Match { entry: entry.0, tokens: best });
                    prop_assert_eq!(tree.longest(adapters, &query), expected);
                    let mut found = tree.prefixes_of(adapters, &query);
                    let mut whole: Vec<_> = list.iter()
                        .filter(|entry| entry.1 == adapters && query.starts_with(&entry.2)).map(|entry| entry.0).collect();
                    found.sort_unstable();
                    whole.sort_unstable();
                    prop_assert_eq!(found, whole);
                }
            }
            for (id, _, _) in list {
                tree.remove(id);
            }
            prop_assert_eq!(tree.nodes.len(), tree.vacant.len(), "an empty tree keeps no node");
        }
    }
}
