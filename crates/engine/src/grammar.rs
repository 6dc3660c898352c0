//! What an answer must look like, and the token masks that enforce it (llguidance).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{
    InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv,
};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use crate::constraint::Constraint;
use crate::dialect::Form;
use crate::{EngineError, Token, gbnf, schema};

/// Whitespace a model may write after a comma and a colon. Bounded, so that no model can fill its answer with it; and
/// both the compact and the spaced form are there, so that a model can write the one it was trained on.
const ITEM_SEPARATOR: &str = ", ?";
const KEY_SEPARATOR: &str = ": ?";

impl From<&Constraint> for Form {
    /// The constraint alone.
    fn from(constraint: &Constraint) -> Self {
        Self {
            lark: "start: @body\n".into(),
            parts: vec![("body".into(), constraint.clone())],
        }
    }
}

impl Form {
    fn top_level(&self) -> Result<TopLevelGrammar, EngineError> {
        // A grammar alone keeps its own start: its errors name its own lines.
        if let [(_, only)] = self.parts.as_slice()
            && *self == Self::from(only)
            && let Some(top_level) = only.top_level()?
        {
            return Ok(top_level);
        }
        let mut all = TopLevelGrammar::from_lark(self.lark.clone());
        for (name, part) in &self.parts {
            let Some(mut part) = part.top_level()? else {
                continue;
            };
            let mut part = part.grammars.remove(0);
            part.name = Some(name.clone());
            all.grammars.push(part);
        }
        Ok(all)
    }
}

impl Constraint {
    fn top_level(&self) -> Result<Option<TopLevelGrammar>, EngineError> {
        Ok(Some(match self {
            Constraint::None => return Ok(None),
            Constraint::JsonObject => {
                TopLevelGrammar::from_json_schema(with_options(json!({"type": "object"})))
            }
            Constraint::JsonSchema(schema) => {
                if let Some(place) = schema::unknown_keyword(schema) {
                    return Err(refused(&format!("{place} is not a keyword of JSON Schema")));
                }
                TopLevelGrammar::from_json_schema(with_options(schema.clone()))
            }
            Constraint::Gbnf(grammar) => TopLevelGrammar::from_lark(gbnf::to_lark(grammar)?),
            Constraint::Lark(grammar) => TopLevelGrammar::from_lark(grammar.clone()),
            Constraint::Regex(regex) => TopLevelGrammar::from_regex(regex),
        }))
    }
}

/// llguidance takes its options inside the schema. What a client put there is replaced: `lenient` would let a schema
/// pass that cannot be enforced.
fn with_options(schema: Value) -> Value {
    let mut schema = match schema {
        Value::Object(schema) => schema,
        // `true` and `false` are schemas too.
        other => match json!({"allOf": [other]}) {
            Value::Object(schema) => schema,
            _ => Default::default(),
        },
    };
    schema.insert(
        "x-guidance".into(),
        json!({
            "item_separator": ITEM_SEPARATOR,
            "key_separator": KEY_SEPARATOR,
            "whitespace_flexible": false,
            "lenient": false,
        }),
    );
    Value::Object(schema)
}

/// From text to tokens whose bytes are that text's; `None` where the tokenizer knows none.
pub type Tokenize = Arc<dyn Fn(&[u8]) -> Option<Vec<Token>> + Send + Sync>;

/// What a grammar must know of a model's vocabulary.
pub struct Vocabulary {
    /// The bytes of every token; of special tokens their name.
    pub tokens: Vec<Vec<u8>>,
    /// Which tokens never appear as text.
    pub special: Vec<bool>,
    /// The token that ends a sequence.
    pub eos: Token,
    /// All tokens that end a generation.
    pub end_of_generation: Vec<Token>,
    /// Tokens of a text, special tokens written out in it not recognised.
    pub tokenize: Tokenize,
}

struct Environment {
    trie: TokTrie,
    tokenize: Tokenize,
}

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        match (self.tokenize)(bytes) {
            None => self.trie.greedy_tokenize(bytes),
            Some(tokens) => tokens.into_iter().map(|token| token as TokenId).collect(),
        }
    }
}

/// Most ways in which a text may go on at one place: each tool is one or two, and so is each optional property.
const MOST_ALTERNATIVES: usize = 20_000;
/// Expressions that one mask may take, some 14,000 in a millisecond. Thousands of texts of which each
/// must also match a pattern take more than the 200,000 that llguidance allows.
const STEP_FUEL: u64 = 1_000_000;

/// Compiled grammars that are kept: clients ask with the same schema again and again.
const KEPT: usize = 16;

/// Compiles constraints for one vocabulary.
pub struct GrammarFactory {
    factory: ParserFactory,
    /// The ones used last, the latest at the end.
    kept: Mutex<Vec<(Form, Grammar)>>,
}

impl std::fmt::Debug for GrammarFactory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrammarFactory").finish_non_exhaustive()
    }
}

impl GrammarFactory {
    /// Builds the token trie; takes some 100 ms for a vocabulary of 150,000.
    pub fn new(vocabulary: Vocabulary) -> Result<Self, EngineError> {
        let words: Vec<Vec<u8>> = vocabulary
            .tokens
            .into_iter()
            .zip(&vocabulary.special)
            .map(|(bytes, special)| {
                if *special {
                    // The marker byte is not valid UTF-8, so no text of a grammar can match a special token.
                    let mut marked = vec![TokTrie::SPECIAL_TOKEN_MARKER];
                    marked.extend(bytes);
                    marked
                } else {
                    bytes
                }
            })
            .collect();
        let ends: Vec<TokenId> = vocabulary
            .end_of_generation
            .iter()
            .map(|token| *token as TokenId)
            .collect();
        let trie = TokTrie::from(
            &TokRxInfo::new(words.len() as u32, vocabulary.eos as TokenId),
            &words,
        );
        let trie = if ends.is_empty() {
            trie
        } else {
            trie.with_eos_tokens(&ends)
        };
        let environment: TokEnv = Arc::new(Environment {
            trie,
            tokenize: vocabulary.tokenize,
        });
        let capabilities = InferenceCapabilities {
            ff_tokens: true,
            ..InferenceCapabilities::default()
        };
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let mut factory =
            ParserFactory::new(&environment, capabilities, &slices).map_err(|error| {
                EngineError::Compute {
                    reason: format!("token trie: {error}"),
                }
            })?;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.max_items_in_row = MOST_ALTERNATIVES;
        limits.step_lexer_fuel = STEP_FUEL;
        Ok(Self {
            factory,
            kept: Mutex::default(),
        })
    }

    /// A grammar at its start; `None` for [`Constraint::None`].
    pub fn compile(&self, constraint: &Constraint) -> Result<Option<Grammar>, EngineError> {
        match constraint {
            Constraint::None => Ok(None),
            constraint => self.compile_form(&constraint.into()).map(Some),
        }
    }

    /// A grammar at its start.
    pub fn compile_form(&self, form: &Form) -> Result<Grammar, EngineError> {
        let top_level = form.top_level()?;
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut kept = kept();
            if let Some(at) = kept.iter().position(|(other, _)| other == form) {
                // The latest one moves to the end.
                kept[at..].rotate_left(1);
                if let Some((_, grammar)) = kept.last() {
                    return Ok(grammar.at_start());
                }
            }
        }
        let grammar = self.build(top_level)?;
        let mut kept = kept();
        if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push((form.clone(), grammar.at_start()));
        Ok(grammar)
    }

    fn build(&self, top_level: TopLevelGrammar) -> Result<Grammar, EngineError> {
        // The library guards its own steps against panics, but not the construction.
        let parser = catch_unwind(AssertUnwindSafe(|| self.factory.create_parser(top_level)))
            .unwrap_or_else(|_| {
                Err(std::io::Error::other("the grammar compiler gave up on it").into())
            })
            .map_err(|error| refused(&error.to_string()))?;
        let mut grammar = Grammar {
            matcher: Matcher::new(Ok(parser)),
            mask: SimpleVob::new(),
        };
        grammar.check()?;
        let warnings = grammar.matcher.grammar_warnings();
        if let Some(warning) = warnings.first() {
            return Err(refused(warning));
        }
        // A grammar that no text satisfies is found at its first token.
        if grammar.mask().is_err() {
            return Err(refused("no text satisfies it"));
        }
        Ok(grammar)
    }
}

fn refused(reason: &str) -> EngineError {
    let reason = reason.lines().next().unwrap_or_default().trim();
    EngineError::Invalid {
        field: "constraint",
        message: format!(
            "the schema or grammar cannot be enforced: {reason}; remove or simplify that part"
        ),
    }
}

/// A constraint being followed token by token.
pub struct Grammar {
    matcher: Matcher,
    mask: SimpleVob,
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammar").finish_non_exhaustive()
    }
}

impl Grammar {
    /// A copy of a grammar that followed nothing yet, which shares no state with it.
    pub(crate) fn at_start(&self) -> Self {
        Self {
            matcher: self.matcher.deep_clone(),
            mask: SimpleVob::new(),
        }
    }

    /// Tokens that may come next, one bit each, 32 to a word; the ones that end the generation exactly where the text
    /// may end.
    pub fn mask(&mut self) -> Result<&[u32], EngineError> {
        self.mask = self
            .matcher
            .compute_mask_or_eos()
            .map_err(|error| failed(&error.to_string()))?;
        Ok(self.mask.as_slice())
    }

    /// Follows a token; an error if the mask did not allow it.
    pub fn accept(&mut self, token: Token) -> Result<(), EngineError> {
        self.matcher
            .consume_token(token as TokenId)
            .map_err(|error| failed(&error.to_string()))
    }

    /// Tokens that must come next whatever the model says. They are not accepted yet.
    pub fn forced(&mut self) -> Vec<Token> {
        if self.is_complete() {
            return Vec::new();
        }
        self.matcher
            .compute_ff_tokens()
            .into_iter()
            .map(|token| token as Token)
            .collect()
    }

    /// Whether nothing may follow any more.
    pub fn is_complete(&self) -> bool {
        self.matcher.is_stopped()
    }

    fn check(&self) -> Result<(), EngineError> {
        match self.matcher.get_error() {
            Some(error) => Err(refused(&error)),
            None => Ok(()),
        }
    }
}

fn failed(reason: &str) -> EngineError {
    let reason = reason.lines().next().unwrap_or_default();
    EngineError::Compute {
        reason: format!(
            "the schema or grammar could not be followed to its end ({reason}); give fewer alternatives, or shorter patterns"
        ),
    }
}
