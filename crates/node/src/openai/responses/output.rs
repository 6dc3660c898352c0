//! The items of an answer, put together from the engine's events; and the events that tell a client of them.
//!
//! One item is open at a time. What the model says next decides whether it goes on or another begins. Whole answers
//! and streamed ones come from here alike, so they cannot differ.

use hearth_engine::TokenLogprob;
use hearth_protocol::chat::TokenLogProb;
use hearth_protocol::responses::{ContentPart, Item, ItemStatus, Role};
use serde_json::{Value, json};

use super::fresh;
use crate::answer::call_id;
use crate::openai::logprob;

/// Says an event: its name and its fields.
type Say<'a> = &'a mut dyn FnMut(&'static str, Value);

/// An answer in the making.
pub(super) struct Output {
    items: Vec<Item>,
    /// Whether the last item is still open.
    open: bool,
    /// Whether reasoning comes as a summary too.
    summary: bool,
}

impl Output {
    /// Nothing yet. `summary` says whether reasoning comes as a summary too.
    pub fn new(summary: bool) -> Self {
        Self {
            items: Vec::new(),
            open: false,
            summary,
        }
    }

    /// More text.
    pub fn text(&mut self, more: &str, logprobs: &[TokenLogprob], say: Say<'_>) {
        if more.is_empty() && logprobs.is_empty() {
            return;
        }
        if !(self.open && matches!(self.items.last(), Some(Item::Message { .. }))) {
            self.begin_message(say);
        }
        let new: Vec<TokenLogProb> = logprobs.iter().map(logprob).collect();
        let (index, id) = self.place();
        let delta = json!({
            "item_id": id, "output_index": index, "content_index": 0, "delta": more, "logprobs": new,
        });
        say("response.output_text.delta", delta);
        if let Some(ContentPart::OutputText { text, logprobs, .. }) = self.part() {
            text.push_str(more);
            logprobs.extend(new);
        }
    }

    /// More reasoning.
    pub fn reasoning(&mut self, more: &str, say: Say<'_>) {
        if !(self.open && matches!(self.items.last(), Some(Item::Reasoning { .. }))) {
            self.begin_reasoning(say);
        }
        let (index, id) = self.place();
        let delta =
            json!({"item_id": id, "output_index": index, "content_index": 0, "delta": more});
        say("response.reasoning_text.delta", delta);
        if self.summary {
            let delta =
                json!({"item_id": id, "output_index": index, "summary_index": 0, "delta": more});
            say("response.reasoning_summary_text.delta", delta);
        }
        if let Some(ContentPart::ReasoningText { text }) = self.part() {
            text.push_str(more);
        }
    }

    /// The model begins to call a function.
    pub fn call(&mut self, name: &str, say: Say<'_>) {
        let item = Item::FunctionCall {
            id: fresh("fc"),
            status: ItemStatus::InProgress,
            call_id: call_id("call_"),
            name: name.to_owned(),
            arguments: String::new(),
        };
        self.begin(item, say);
    }

    /// More of a call's arguments.
    pub fn arguments(&mut self, more: &str, say: Say<'_>) {
        let (index, id) = self.place();
        let delta = json!({"item_id": id, "output_index": index, "delta": more});
        say("response.function_call_arguments.delta", delta);
        if let Some(Item::FunctionCall { arguments, .. }) = self.items.last_mut() {
            arguments.push_str(more);
        }
    }

    /// The model is done; `cut` says that it was not at its end. Gives the items away.
    pub fn finish(&mut self, cut: bool, say: Say<'_>) -> Vec<Item> {
        if self.items.is_empty() {
            // A model that says nothing says an empty message.
            self.begin_message(say);
        }
        let status = match cut {
            true => ItemStatus::Incomplete,
            false => ItemStatus::Completed,
        };
        self.close(status, say);
        std::mem::take(&mut self.items)
    }

    fn begin_message(&mut self, say: Say<'_>) {
        let item = Item::Message {
            id: fresh("msg"),
            status: ItemStatus::InProgress,
            role: Role::Assistant,
            content: Vec::new(),
        };
        self.begin(item, say);
        self.begin_part(ContentPart::output(String::new()), say);
    }

    fn begin_reasoning(&mut self, say: Say<'_>) {
        let item = Item::Reasoning {
            id: fresh("rs"),
            status: ItemStatus::InProgress,
            summary: Vec::new(),
            content: Vec::new(),
            encrypted_content: None,
        };
        self.begin(item, say);
        let text = String::new();
        self.begin_part(ContentPart::ReasoningText { text }, say);
        if self.summary {
            let (index, id) = self.place();
            let part = ContentPart::SummaryText {
                text: String::new(),
            };
            let added =
                json!({"item_id": id, "output_index": index, "summary_index": 0, "part": part});
            say("response.reasoning_summary_part.added", added);
        }
    }

    fn begin(&mut self, item: Item, say: Say<'_>) {
        self.close(ItemStatus::Completed, say);
        let added = json!({"output_index": self.items.len(), "item": item});
        say("response.output_item.added", added);
        self.items.push(item);
        self.open = true;
    }

    fn begin_part(&mut self, part: ContentPart, say: Say<'_>) {
        let (index, id) = self.place();
        let added = json!({"item_id": id, "output_index": index, "content_index": 0, "part": part});
        say("response.content_part.added", added);
        if let Some(Item::Message { content, .. } | Item::Reasoning { content, .. }) =
            self.items.last_mut()
        {
            content.push(part);
        }
    }

    /// Closes the open item, if there is one.
    fn close(&mut self, end: ItemStatus, say: Say<'_>) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let index = self.items.len() - 1;
        let Some(item) = self.items.last_mut() else {
            return;
        };
        match item {
            Item::Message {
                id,
                status,
                content,
                ..
            } => {
                *status = end;
                if let Some(ContentPart::OutputText { text, logprobs, .. }) = content.first() {
                    let done = json!({
                        "item_id": id, "output_index": index, "content_index": 0,
                        "text": text, "logprobs": logprobs,
                    });
                    say("response.output_text.done", done);
                }
                let part = content.first();
                let done =
                    json!({"item_id": id, "output_index": index, "content_index": 0, "part": part});
                say("response.content_part.done", done);
            }
            Item::Reasoning {
                id,
                status,
                summary,
                content,
                ..
            } => {
                *status = end;
                let text = content.first().map_or("", ContentPart::text).to_owned();
                let done =
                    json!({"item_id": id, "output_index": index, "content_index": 0, "text": text});
                say("response.reasoning_text.done", done);
                let part = content.first();
                let done =
                    json!({"item_id": id, "output_index": index, "content_index": 0, "part": part});
                say("response.content_part.done", done);
                if self.summary {
                    let done = json!({
                        "item_id": id, "output_index": index, "summary_index": 0, "text": text,
                    });
                    say("response.reasoning_summary_text.done", done);
                    let part = ContentPart::SummaryText { text };
                    let done = json!({
                        "item_id": id, "output_index": index, "summary_index": 0, "part": part,
                    });
                    say("response.reasoning_summary_part.done", done);
                    summary.push(part);
                }
            }
            Item::FunctionCall {
                id,
                status,
                name,
                arguments,
                ..
            } => {
                *status = end;
                let done = json!({
                    "item_id": id, "output_index": index, "name": name, "arguments": arguments,
                });
                say("response.function_call_arguments.done", done);
            }
            Item::FunctionCallOutput { .. } => {}
        }
        say(
            "response.output_item.done",
            json!({"output_index": index, "item": item}),
        );
    }

    /// Number and id of the open item.
    fn place(&self) -> (usize, &str) {
        let id = self.items.last().map_or("", Item::id);
        (self.items.len().saturating_sub(1), id)
    }

    /// The open item's part.
    fn part(&mut self) -> Option<&mut ContentPart> {
        match self.items.last_mut()? {
            Item::Message { content, .. } | Item::Reasoning { content, .. } => content.last_mut(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
