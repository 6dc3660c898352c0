//! The conversation so far, and the files it can be kept in.

use std::path::Path;

use serde_json::{Value, json};

use crate::failure::{Failure, Outcome};

/// A conversation in OpenAI's message shape.
#[derive(Debug, Default)]
pub struct Transcript {
    /// What the model should be.
    pub system: Option<String>,
    /// Questions and answers, oldest first.
    pub messages: Vec<Value>,
}

impl Transcript {
    /// Adds a question.
    pub fn ask(&mut self, text: &str) {
        self.messages.push(json!({"role": "user", "content": text}));
    }

    /// Adds an answer.
    pub fn answered(&mut self, text: &str) {
        self.messages
            .push(json!({"role": "assistant", "content": text}));
    }

    /// Takes the last question back, if it has no answer yet.
    pub fn take_question(&mut self) {
        self.messages.pop_if(|message| message["role"] == "user");
    }

    /// Takes the last answer back; false if there is no question before it.
    pub fn take_answer(&mut self) -> bool {
        self.messages
            .pop_if(|message| message["role"] == "assistant");
        self.messages
            .last()
            .is_some_and(|message| message["role"] == "user")
    }

    /// Everything, as the model gets it.
    pub fn all(&self) -> Vec<Value> {
        let system = self
            .system
            .iter()
            .map(|text| json!({"role": "system", "content": text}));
        system.chain(self.messages.iter().cloned()).collect()
    }

    /// Keeps it: messages for `*.json`, else Markdown.
    pub fn save(&self, path: &Path) -> Outcome {
        let text = if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            format!("{:#}\n", json!({"messages": self.all()}))
        } else {
            self.markdown()
        };
        std::fs::write(path, text)
            .map_err(|error| Failure::file("write", path, &error, "choose another file"))
    }

    fn markdown(&self) -> String {
        let mut text = String::new();
        for message in self.all() {
            let who = match message["role"].as_str() {
                Some("user") => "You",
                Some("system") => "System",
                _ => "Hearth",
            };
            text += &format!(
                "## {who}\n\n{}\n\n",
                message["content"].as_str().unwrap_or_default().trim_end()
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_can_be_taken_back_and_a_question_only_while_it_has_none() {
        let mut talk = Transcript {
            system: Some("be brief".into()),
            ..Transcript::default()
        };
        assert!(!talk.take_answer());
        talk.ask("one");
        talk.answered("two");
        talk.take_question();
        assert_eq!(talk.messages.len(), 2);
        assert!(talk.take_answer());
        assert_eq!(
            talk.markdown(),
            "## System\n\nbe brief\n\n## You\n\none\n\n"
        );
        talk.take_question();
        assert_eq!(talk.all().len(), 1);
    }
}
