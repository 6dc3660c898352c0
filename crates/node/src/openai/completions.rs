//! `POST /v1/completions`.

use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hearth_engine::{Event, Prompt, Request, TokenLogprob, Usage};
use hearth_protocol::completion::{
    Completion, CompletionChoice, CompletionLogProbs, CompletionRequest, OnePrompt,
};
use hearth_protocol::error::{ApiError, ErrorBody};
use hearth_protocol::parse;

use super::{DONE, Head, gbnf, reason, sampling, usage};
use crate::answer::{Names, Watched};
use crate::body::received;
use crate::failure::Failure;
use crate::state::Shared;
use crate::stream::{self, Chunks};

/// Tokens OpenAI generates here when `max_tokens` is left out.
const DEFAULT_TOKENS: u32 = 16;

const NAMES: Names = Names {
    prompt: "prompt",
    constraint: "grammar",
    max_tokens: "max_tokens",
    logprobs: "logprobs",
};

/// Continues text.
#[utoipa::path(post, path = "/v1/completions", tag = "openai", request_body = CompletionRequest, responses(
    (status = 200, description = "the continuations; with `stream` as server-sent events", body = Completion),
    (status = 400, description = "a field is wrong (`param` names it) or the prompt is too long", body = ErrorBody),
    (status = 404, description = "no such model", body = ErrorBody),
    (status = 413, description = "the body is too large", body = ErrorBody),
    (status = 429, description = "the queue is full; see Retry-After", body = ErrorBody),
    (status = 503, description = "the model is loading; see Retry-After, `progress` and `eta`", body = ErrorBody)))]
pub(crate) async fn completions(
    State(node): State<Shared>,
    body: Body,
) -> Result<Response, Failure> {
    let begun = Instant::now();
    let request: CompletionRequest = parse::body(&received(&node, body).await?)?;
    request.check()?;
    let mut answers = Vec::new();
    for prompt in request.prompt.each() {
        let asked = engine_request(&request, prompt)?;
        answers.push(Watched::ask(&node, request.model.as_deref(), asked, NAMES, begun).await?);
    }
    let model = answers.first().map(Watched::model).unwrap_or_default();
    let head = Head::new(&node, "cmpl", model);
    answers.iter_mut().for_each(|answer| answer.named(&head.id));
    let mut writer = Writer::new(head, &request);
    if request.stream == Some(true) {
        return Ok(stream::respond(answers, writer));
    }
    let mut choices: Vec<CompletionChoice> = Vec::new();
    for (prompt, mut answer) in answers.into_iter().enumerate() {
        choices.extend(writer.empty_choices(prompt));
        loop {
            let event = answer.next().await?;
            if let Some(piece) = writer.piece(prompt, &event) {
                let choice = &mut choices[piece.index as usize];
                choice.text.push_str(&piece.text);
                choice.finish_reason = piece.finish_reason.or(choice.finish_reason.take());
                if let (Some(all), Some(new)) = (&mut choice.logprobs, piece.logprobs) {
                    all.tokens.extend(new.tokens);
                    all.token_logprobs.extend(new.token_logprobs);
                    all.top_logprobs.extend(new.top_logprobs);
                    all.text_offset.extend(new.text_offset);
                }
            }
            if matches!(event, Event::Done(_)) {
                break;
            }
        }
    }
    Ok(Json(writer.completion(choices, Some(usage(writer.used)))).into_response())
}

fn engine_request(request: &CompletionRequest, prompt: OnePrompt) -> Result<Request, ApiError> {
    let fields = request.sampling();
    let prompt = match prompt {
        OnePrompt::Text(text) => Prompt::Text(text),
        OnePrompt::Tokens(tokens) => Prompt::Tokens(tokens),
    };
    Ok(Request {
        sampling: sampling(&fields)?,
        constraint: gbnf(&request.grammar),
        max_tokens: Some(request.max_tokens.unwrap_or(DEFAULT_TOKENS)),
        ignore_eos: fields.ignore_eos == Some(true),
        stop: stops(request),
        n: request.n.unwrap_or(1),
        logprobs: request.logprobs,
        ..Request::new(prompt)
    })
}

fn stops(request: &CompletionRequest) -> Vec<String> {
    request
        .stop
        .as_ref()
        .map(|stop| stop.texts())
        .unwrap_or_default()
}

/// Turns events into choices, whole or in pieces.
struct Writer {
    head: Head,
    n: u32,
    /// Texts to stand before the answers, one per prompt.
    echo: Vec<String>,
    logprobs: bool,
    include_usage: bool,
    used: Usage,
    stops: Vec<String>,
    /// How far the text of each choice is.
    places: Vec<Place>,
}

/// How far a choice's text is. It lags behind the tokens: what may become a stop text, or is half a character, is sent
/// later or never.
#[derive(Debug, Clone, Default)]
struct Place {
    /// Characters sent.
    sent: usize,
    /// Bytes of tokens that may become a stop text.
    held: Vec<u8>,
}

impl Place {
    /// Takes what came, and says at which character of the text each token starts; one that goes on with a split
    /// character starts where that does.
    fn advance(&mut self, tokens: &[TokenLogprob], text: &str, stops: &[String]) -> Vec<usize> {
        let mut starts = Vec::with_capacity(tokens.len());
        for token in tokens {
            let held = self.held.utf8_chunks();
            let held: usize = held.map(|chunk| chunk.valid().chars().count()).sum();
            starts.push(self.sent + held);
            self.held.extend(&token.chosen.bytes);
        }
        self.sent += text.chars().count();
        let longest = stops.iter().filter_map(|stop| {
            let stop = stop.as_bytes();
            (1..stop.len().min(self.held.len() + 1))
                .rev()
                .find(|length| self.held.ends_with(&stop[..*length]))
        });
        let length = longest.max().unwrap_or(0);
        self.held.drain(..self.held.len() - length);
        if length == 0 {
            // A token that is part of a stop text, or of the end, is at the end of the text.
            starts
                .iter_mut()
                .for_each(|start| *start = self.sent.min(*start));
        }
        starts
    }
}

impl Writer {
    fn new(head: Head, request: &CompletionRequest) -> Self {
        let n = request.n.unwrap_or(1);
        let prompts = request.prompt.each();
        let echo = prompts.iter().map(|prompt| match prompt {
            OnePrompt::Text(text) if request.echo == Some(true) => text.clone(),
            _ => String::new(),
        });
        Self {
            head,
            n,
            echo: echo.collect(),
            logprobs: request.logprobs.is_some(),
            include_usage: request
                .stream_options
                .is_some_and(|options| options.include_usage == Some(true)),
            used: Usage::default(),
            stops: stops(request),
            places: vec![Place::default(); prompts.len() * n as usize],
        }
    }

    fn empty_choices(&self, prompt: usize) -> Vec<CompletionChoice> {
        (0..self.n)
            .map(|choice| CompletionChoice {
                index: prompt as u32 * self.n + choice,
                text: self.echo.get(prompt).cloned().unwrap_or_default(),
                logprobs: self.logprobs.then(CompletionLogProbs::default),
                finish_reason: None,
            })
            .collect()
    }

    fn piece(&mut self, prompt: usize, event: &Event) -> Option<CompletionChoice> {
        let offset = prompt as u32 * self.n;
        match event {
            Event::Started { .. }
            | Event::Reasoning { .. }
            | Event::ToolCall { .. }
            | Event::ToolArguments { .. } => None,
            Event::Text {
                choice,
                text,
                logprobs,
            } => {
                let index = offset + choice;
                let logprobs = self
                    .logprobs
                    .then(|| self.logprobs(index as usize, text, logprobs));
                Some(CompletionChoice {
                    index,
                    text: text.clone(),
                    logprobs,
                    finish_reason: None,
                })
            }
            Event::Finished {
                choice,
                reason: why,
                ..
            } => Some(CompletionChoice {
                index: offset + choice,
                text: String::new(),
                logprobs: None,
                finish_reason: Some(reason(*why).into()),
            }),
            Event::Done(used) => {
                self.used.prompt_tokens += used.prompt_tokens;
                self.used.cached_tokens += used.cached_tokens;
                self.used.completion_tokens += used.completion_tokens;
                None
            }
        }
    }

    fn logprobs(
        &mut self,
        index: usize,
        sent: &str,
        tokens: &[TokenLogprob],
    ) -> CompletionLogProbs {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut all = CompletionLogProbs {
            text_offset: self.places[index].advance(tokens, sent, &self.stops),
            ..CompletionLogProbs::default()
        };
        for token in tokens {
            all.tokens.push(text(&token.chosen.bytes));
            all.token_logprobs.push(token.chosen.logprob);
            let top = token
                .top
                .iter()
                .map(|top| (text(&top.bytes), top.logprob.into()));
            all.top_logprobs.push(top.collect());
        }
        all
    }

    fn completion(
        &self,
        choices: Vec<CompletionChoice>,
        usage: Option<hearth_protocol::chat::Usage>,
    ) -> Completion {
        Completion {
            id: self.head.id.clone(),
            object: "text_completion".into(),
            created: self.head.created,
            model: self.head.model.clone(),
            choices,
            usage,
            system_fingerprint: self.head.fingerprint.clone(),
        }
    }

    fn push(
        &self,
        out: &mut String,
        choices: Vec<CompletionChoice>,
        usage: Option<hearth_protocol::chat::Usage>,
    ) {
        let waits = self.include_usage && usage.is_none();
        let chunk = self.completion(choices, usage);
        let mut json = serde_json::to_string(&chunk).unwrap_or_default();
        // Who asked for the usage gets the field in every chunk.
        if waits && json.pop().is_some() {
            json.push_str(r#","usage":null}"#);
        }
        stream::push(out, &json);
    }
}

impl Chunks for Writer {
    fn event(&mut self, prompt: usize, event: &Event, out: &mut String) {
        if matches!(event, Event::Started { .. })
            && self.echo.get(prompt).is_some_and(|echo| !echo.is_empty())
        {
            self.push(out, self.empty_choices(prompt), None);
        }
        if let Some(piece) = self.piece(prompt, event) {
            self.push(out, vec![piece], None);
        }
    }

    fn end(&mut self, out: &mut String) {
        if self.include_usage {
            self.push(out, Vec::new(), Some(usage(self.used)));
        }
        out.push_str(DONE);
    }
}
