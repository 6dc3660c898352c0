//! What a node adds to the engine, per request and per token: `node_overhead MODEL.gguf`.
//!
//! One process holds one engine, asked directly and through a node's door in turn, one thread of it computing, so that
//! the other cores are free for the door. The model should be tiny: the less it takes, the less its noise hides.
//! Prints one line of JSON.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hearth_engine::{
    Catalogue, Chat, Engine, EngineOptions, ModelOptions, Prompt, Request, Sampling,
};
use hearth_node::{Node, NodeOptions};
use serde_json::json;

/// Pairs of requests measured, after as many again that are not.
const PAIRS: usize = 60;
/// Tokens of the long answers.
const LONG: u32 = 65;

fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: node_overhead MODEL.gguf");
        return ExitCode::FAILURE;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    match runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(run(path)))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

async fn run(path: String) -> Result<(), String> {
    let model = ModelOptions {
        context: Some(512),
        slots: 1,
        threads: Some(1),
        ..ModelOptions::default()
    };
    let options = EngineOptions {
        model,
        ..EngineOptions::default()
    };
    let mut catalogue = Catalogue::default();
    catalogue.register("bench", path);
    let engine = Engine::new(options, catalogue);
    engine.load(None).await.map_err(|error| error.to_string())?;
    let options = NodeOptions {
        version: "bench",
        body_limit: 1 << 20,
        head_timeout: std::time::Duration::from_secs(30),
        stall_timeout: std::time::Duration::from_secs(30),
        store: None,
        models: None,
        memories: None,
        encoders: None,
        listener: None,
        mesh: None,
        log_prompts: false,
    };
    let door = SocketAddr::from(([127, 0, 0, 1], 0));
    let node = Node::bind(door, engine.clone(), options)
        .await
        .map_err(|error| error.to_string())?;
    let address = node.address().map_err(|error| error.to_string())?;
    tokio::spawn(node.serve(std::future::pending()));

    let mut door = TcpStream::connect(address).map_err(|error| error.to_string())?;
    door.set_nodelay(true).map_err(|error| error.to_string())?;
    let mut times = [const { Vec::new() }; 4];
    for pair in 0..2 * PAIRS {
        for (index, length) in [(0, 1), (2, LONG)] {
            let direct = ask_engine(&engine, length).await?;
            let through = tokio::task::block_in_place(|| ask_node(&mut door, length))?;
            if pair >= PAIRS {
                times[index].push(direct);
                times[index + 1].push(through);
            }
        }
    }
    let [direct, through, direct_long, through_long] = times.map(median);
    let request = through - direct;
    let token = ((through_long - through) - (direct_long - direct)) / f64::from(LONG - 1);
    println!(
        "{}",
        json!({
            "request_ms": request * 1e3,
            "token_us": token * 1e6,
            "direct_request_ms": direct * 1e3,
            "direct_token_us": (direct_long - direct) / f64::from(LONG - 1) * 1e6,
        })
    );
    Ok(())
}

async fn ask_engine(engine: &Engine, length: u32) -> Result<Duration, String> {
    let messages = vec![json!({"role": "user", "content": "a word"})];
    let mut request = Request::new(Prompt::Chat(Chat::new(messages)));
    request.sampling = Sampling {
        temperature: Some(0.0),
        ..Sampling::default()
    };
    request.max_tokens = Some(length);
    let start = Instant::now();
    let mut generation = engine
        .generate(None, request)
        .await
        .map_err(|error| error.to_string())?;
    while let Some(event) = generation.next().await {
        event.map_err(|error| error.to_string())?;
    }
    Ok(start.elapsed())
}

/// One streamed request on a connection that stays open. The answer is read, not parsed: that is the client's work.
fn ask_node(door: &mut TcpStream, length: u32) -> Result<Duration, String> {
    let body = json!({
        "messages": [{"role": "user", "content": "a word"}], "max_tokens": length, "temperature": 0, "stream": true
    });
    let body = body.to_string();
    let address = door.peer_addr().map_err(|error| error.to_string())?;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let start = Instant::now();
    door.write_all(request.as_bytes())
        .map_err(|error| error.to_string())?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 16 << 10]);
    // The last chunk of a chunked body.
    while !answer.ends_with(b"0\r\n\r\n") {
        let length = door.read(&mut buffer).map_err(|error| error.to_string())?;
        if length == 0 {
            return Err("the node closed the connection".to_owned());
        }
        answer.extend_from_slice(&buffer[..length]);
        // What is refused has no chunks whose end could be waited for.
        if !answer.starts_with(b"HTTP/1.1 200") {
            return Err(String::from_utf8_lossy(&answer).into_owned());
        }
    }
    Ok(start.elapsed())
}

/// In seconds.
fn median(mut samples: Vec<Duration>) -> f64 {
    samples.sort();
    samples[samples.len() / 2].as_secs_f64()
}
