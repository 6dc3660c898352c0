//! A stand-in for an encoder: it knows which words mean the same, and so decides exactly what is near.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hearth_memory::{Embed, Source};

/// An encoder that knows which words mean the same, and nothing else: each meaning is a direction.
pub struct Meanings {
    dimensions: usize,
    /// Queries that were encoded.
    pub asked: AtomicUsize,
}

const SAME: [[&str; 3]; 4] = [
    ["car", "automobile", "vehicle"],
    ["database", "storage", "sqlite"],
    ["buy", "purchase", "shopping"],
    ["port", "socket", "address"],
];

/// Words that mean nothing by themselves.
const EMPTY: [&str; 5] = ["the", "where", "which", "for", "some"];

impl Meanings {
    pub fn new(dimensions: usize) -> Arc<Self> {
        Arc::new(Self {
            dimensions,
            asked: AtomicUsize::new(0),
        })
    }

    /// Gives it whenever it is asked for.
    pub fn source(self: Arc<Self>) -> Source {
        Arc::new(move || Ok(self.clone()))
    }

    fn vector(&self, text: &str) -> Vec<f32> {
        let mut vector = vec![0.0f32; self.dimensions];
        for word in text
            .split(|c: char| !c.is_alphanumeric())
            .map(str::to_lowercase)
            .filter(|word| word.len() > 2 && !EMPTY.contains(&word.as_str()))
        {
            let meaning = SAME.iter().find(|same| same.contains(&word.as_str()));
            let mut hasher = DefaultHasher::new();
            meaning
                .map_or(word.as_str(), |same| same[0])
                .hash(&mut hasher);
            let mut state = hasher.finish();
            for value in &mut vector {
                state = state
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                *value += (state >> 33) as f32 / (1u64 << 31) as f32 - 0.5;
            }
        }
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-9);
        vector.iter().map(|x| x / length).collect()
    }
}

impl Embed for Meanings {
    fn id(&self) -> String {
        format!("meanings {}", self.dimensions)
    }

    fn name(&self) -> String {
        "meanings".into()
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn query(&self, text: &str) -> Result<Vec<f32>, String> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(self.vector(text))
    }

    fn passages(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, String> {
        Ok(texts.iter().map(|text| self.vector(text)).collect())
    }
}
