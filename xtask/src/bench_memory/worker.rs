//! A program that answers a line of JSON with a line of JSON.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

/// A running program; it ends when this is dropped.
pub struct Worker {
    name: &'static str,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts it.
    pub fn start(name: &'static str, mut command: Command) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("{name}: {error}");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (input, output) = pipes.ok_or(format!("{name} has no pipes"))?;
        Ok(Self {
            name,
            child,
            input,
            output: BufReader::new(output),
        })
    }

    /// Asks, and waits for the answer.
    pub fn ask(&mut self, question: &Value) -> Result<Value, String> {
        let name = self.name;
        let failed = |error: std::io::Error| format!("{name}: {error}");
        writeln!(self.input, "{question}").map_err(failed)?;
        self.input.flush().map_err(failed)?;
        let mut line = String::new();
        if self.output.read_line(&mut line).map_err(failed)? == 0 {
            return Err(format!("{name} ended at {question:.120}"));
        }
        let answer: Value =
            serde_json::from_str(&line).map_err(|error| format!("{name}: {error}: {line}"))?;
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => Err(format!("{name}: {error} at {:.200}", question.to_string())),
            None => Ok(answer),
        }
    }

    /// Asks for times in milliseconds.
    pub fn times(&mut self, question: &Value) -> Result<Vec<f64>, String> {
        Ok(numbers(&self.ask(question)?["times"]))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Its input closes with it, at which it would end by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The numbers of a list.
pub fn numbers(list: &Value) -> Vec<f64> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(Value::as_f64).collect()
}
