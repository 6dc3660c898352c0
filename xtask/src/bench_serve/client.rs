//! The client side of the benchmark: starts a server, talks to it over its OpenAI surface, and takes the times.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A running server. Dropping it ends the process.
pub struct Server {
    child: Child,
    port: u16,
    agent: ureq::Agent,
    /// When the process was started.
    pub started: Instant,
}

/// What one streamed answer took.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// From sending the request to the first text.
    pub first: Duration,
    /// From sending the request to the last text.
    pub last: Duration,
    /// When the first text came.
    pub first_at: Instant,
    /// Tokens of the prompt, as the server counted them.
    pub prompt_tokens: u64,
    /// Tokens of the answer, as the server counted them.
    pub tokens: u64,
}

impl Answer {
    /// Tokens per second once the first one was there.
    pub fn decode_rate(&self) -> f64 {
        (self.tokens.saturating_sub(1)) as f64 / (self.last - self.first).as_secs_f64()
    }

    /// Prompt tokens per second until the first token.
    pub fn prefill_rate(&self) -> f64 {
        self.prompt_tokens as f64 / self.first.as_secs_f64()
    }
}

/// A port nobody listens on.
pub fn free_port() -> Result<u16, String> {
    let listener =
        TcpListener::bind("127.0.0.1:0").map_err(|error| format!("no free port: {error}"))?;
    Ok(listener
        .local_addr()
        .map_err(|error| error.to_string())?
        .port())
}

impl Server {
    /// Starts `program`; what it says goes to `log`.
    pub fn start(mut command: Command, port: u16, log: &PathBuf) -> Result<Self, String> {
        let program = command.get_program().display().to_string();
        let file =
            std::fs::File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
        let copy = file.try_clone().map_err(|error| error.to_string())?;
        let started = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy)
            .spawn()
            .map_err(|error| format!("{program} could not be started: {error}"))?;
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(600)));
        let agent = config.http_status_as_error(false).build().into();
        Ok(Self {
            child,
            port,
            agent,
            started,
        })
    }

    /// Waits until a request for one token is answered, at most two minutes, and returns that answer.
    pub fn wait_until_it_answers(&mut self) -> Result<Answer, String> {
        let request = json!({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1, "temperature": 0});
        let mut last = String::new();
        while self.started.elapsed() < Duration::from_secs(120) {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("the server ended with {status}; {last}"));
            }
            match self.ask("/v1/chat/completions", request.clone()) {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
            // Often enough to measure a start of a few milliseconds, seldom enough not to slow it.
            std::thread::sleep(Duration::from_micros(500));
        }
        Err(format!(
            "the server did not answer within two minutes; {last}"
        ))
    }

    /// Waits until `path` answers with success.
    pub fn wait_until_up(&mut self, path: &str) -> Result<(), String> {
        while self.started.elapsed() < Duration::from_secs(60) {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("the server ended with {status}"));
            }
            let url = format!("http://127.0.0.1:{}{path}", self.port);
            if self
                .agent
                .get(&url)
                .call()
                .is_ok_and(|response| response.status().is_success())
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(format!("{path} did not answer within a minute"))
    }

    /// Sends a request and reads the answer, which is JSON.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let sent = self.agent.post(&url).send(body.to_string());
        let mut answer = sent.map_err(|error| format!("{path}: {error}"))?;
        let text = answer.body_mut().read_to_string();
        let text = text.map_err(|error| format!("{path}: {error}"))?;
        serde_json::from_str(&text).map_err(|error| format!("{path}: {error} in {text:.200}"))
    }

    /// Sends a request and reads the streamed answer to its end.
    pub fn ask(&self, path: &str, mut request: Value) -> Result<Answer, String> {
        request["stream"] = true.into();
        request["stream_options"] = json!({"include_usage": true});
        let body = request.to_string();
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let sent = Instant::now();
        let response = self
            .agent
            .post(&url)
            .header("content-type", "application/json")
            .send(body);
        let mut response = response.map_err(|error| error.to_string())?;
        if !response.status().is_success() {
            let text = response.body_mut().read_to_string().unwrap_or_default();
            return Err(format!("{path} answered {}: {text}", response.status()));
        }
        let (mut first, mut last, mut usage) = (None, None, Value::Null);
        for line in BufReader::new(response.into_body().into_reader()).lines() {
            let line = line.map_err(|error| format!("{path}: the stream broke off: {error}"))?;
            let Some(data) = line.strip_prefix("data: ") else {
                continue;
            };
            if data == "[DONE]" {
                break;
            }
            let now = Instant::now();
            let event: Value =
                serde_json::from_str(data).map_err(|error| format!("{path}: {error} in {data}"))?;
            if let Some(error) = event.get("error") {
                return Err(format!("{path}: {error}"));
            }
            if !text(&event).is_empty() {
                first.get_or_insert(now);
                last = Some(now);
            }
            if event["usage"].is_object() {
                usage = event["usage"].clone();
            }
        }
        let (Some(first_at), Some(last_at)) = (first, last) else {
            return Err(format!("{path}: an empty answer"));
        };
        Ok(Answer {
            first: first_at - sent,
            last: last_at - sent,
            first_at,
            prompt_tokens: usage["prompt_tokens"]
                .as_u64()
                .ok_or("the server sent no usage")?,
            tokens: usage["completion_tokens"]
                .as_u64()
                .ok_or("the server sent no usage")?,
        })
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
            .map(|kilobytes| kilobytes * 1024)
    }
}

/// New text of an event, whichever endpoint sent it.
fn text(event: &Value) -> &str {
    let choice = &event["choices"][0];
    choice["delta"]["content"]
        .as_str()
        .or(choice["text"].as_str())
        .unwrap_or_default()
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
