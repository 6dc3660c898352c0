//! MCP over a pair of pipes, a message a line, as `rmcp` takes it. `rmcp`'s own transport leaves a line that is no JSON
//! without an answer, and one of a wrong shape without the id it came with; here both are answered as JSON-RPC has it.

use std::io::Error;
use std::sync::Arc;

use rmcp::RoleServer;
use rmcp::model::{ClientJsonRpcMessage, ErrorCode, ServerJsonRpcMessage};
use rmcp::transport::Transport;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

use super::shape::{Wrong, looked_over};

/// Most bytes of a line: nothing that a tool takes is near it, and a line without an end must not fill the memory.
const MOST_LINE: usize = 16 << 20;
/// Messages that were read and not yet taken.
const AHEAD: usize = 16;

/// A pair of pipes.
pub(crate) struct Pipes<W> {
    messages: mpsc::Receiver<ClientJsonRpcMessage>,
    /// `None` once it is closed.
    writer: Arc<Mutex<Option<W>>>,
    reading: JoinHandle<()>,
}

impl<W: AsyncWrite + Send + Unpin + 'static> Pipes<W> {
    /// Begins to read. What waits for a message is given up and begun again whenever something else happens, so that
    /// reading, and answering what is no message, go on by themselves.
    pub fn open(reader: impl AsyncRead + Send + Unpin + 'static, writer: W) -> Self {
        let writer = Arc::new(Mutex::new(Some(writer)));
        let (send, messages) = mpsc::channel(AHEAD);
        let reading = read(BufReader::new(reader), send, Arc::clone(&writer));
        Self {
            messages,
            writer,
            reading: tokio::spawn(reading),
        }
    }
}

impl<W> Drop for Pipes<W> {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl<W: AsyncWrite + Send + Unpin + 'static> Transport<RoleServer> for Pipes<W> {
    type Error = Error;

    fn send(
        &mut self,
        message: ServerJsonRpcMessage,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let writer = Arc::clone(&self.writer);
        async move { write(&writer, &message).await }
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        self.messages.recv().await
    }

    async fn close(&mut self) -> Result<(), Error> {
        drop(self.writer.lock().await.take());
        Ok(())
    }
}

/// Reads lines until they end, nobody wants them, or nothing can be answered.
async fn read<W: AsyncWrite + Unpin>(
    mut reader: BufReader<impl AsyncRead + Unpin>,
    send: mpsc::Sender<ClientJsonRpcMessage>,
    writer: Arc<Mutex<Option<W>>>,
) {
    let mut line = Vec::new();
    loop {
        let looked = match next_line(&mut reader, &mut line).await {
            Ok(Some(true)) if line.trim_ascii().is_empty() => continue,
            Ok(Some(true)) => looked_over(&line, "line"),
            Ok(Some(false)) => Err(Wrong {
                code: ErrorCode::INVALID_REQUEST,
                message: format!("the line is longer than {} MiB", MOST_LINE >> 20),
                id: None,
                is_notification: false,
            }),
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "nothing more can be read");
                return;
            }
        };
        let gone = match looked {
            Ok(message) => send.send(message).await.is_err(),
            Err(wrong) if wrong.is_notification => continue,
            Err(wrong) => write(&writer, &wrong.answer()).await.is_err(),
        };
        if gone {
            return;
        }
    }
}

/// Reads a line without its end: whether there is one, and whether it is whole or was dropped for its length. What
/// stands at the end without a line's end is no message.
async fn next_line(
    reader: &mut BufReader<impl AsyncRead + Unpin>,
    line: &mut Vec<u8>,
) -> Result<Option<bool>, Error> {
    line.clear();
    let mut fits = true;
    loop {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            return Ok(None);
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let part = end.and_then(|end| available.get(..end));
        let part = part.unwrap_or(available);
        fits &= line.len() + part.len() <= MOST_LINE;
        match fits {
            true => line.extend_from_slice(part),
            false => *line = Vec::new(),
        }
        let taken = part.len() + usize::from(end.is_some());
        reader.consume(taken);
        if end.is_some() {
            return Ok(Some(fits));
        }
    }
}

/// Writes a message as a line.
async fn write<W: AsyncWrite + Unpin>(
    writer: &Mutex<Option<W>>,
    message: &impl Serialize,
) -> Result<(), Error> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let mut writer = writer.lock().await;
    let writer = writer
        .as_mut()
        .ok_or_else(|| Error::from(std::io::ErrorKind::NotConnected))?;
    writer.write_all(&line).await?;
    writer.flush().await
}
