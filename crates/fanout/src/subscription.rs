//! One subscriber's place in a log.

use std::collections::VecDeque;

use hearth_protocol::event::Cursor;
use tokio::sync::watch;

use crate::window::{Frame, Here};
use crate::{Error, Log};

/// A subscriber's place. It holds events only while it catches up, and those of one page.
#[derive(Debug)]
pub struct Subscription {
    log: Log,
    moved: watch::Receiver<Cursor>,
    /// The last event it was given.
    cursor: Cursor,
    generation: u64,
    /// Whether it had everything once; who falls behind afterwards is slow.
    live: bool,
    /// Read from the table.
    read: VecDeque<Frame>,
}

/// Why a subscription ends. The subscriber comes back with its cursor, and is told then how it goes on.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    /// It took events more slowly than they came.
    #[error("too slow: the events after the last one taken are no longer in memory")]
    Slow,
    /// The log was replaced by another one.
    #[error("the log was replaced")]
    Replaced,
    /// It cannot go on, or the database fails.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl Subscription {
    pub(crate) fn new(log: Log, cursor: Cursor, generation: u64, read: Vec<Frame>) -> Self {
        Self {
            moved: log.watch(),
            log,
            cursor,
            generation,
            live: false,
            read: read.into(),
        }
    }

    /// The last event that was given, or where the subscription starts.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// The next event, with no gap to the one before. Dropping the future before it is ready loses nothing.
    ///
    /// # Errors
    /// Why the subscription is over.
    pub async fn next(&mut self) -> Result<Frame, Cut> {
        loop {
            if let Some(frame) = self.read.pop_front() {
                return Ok(self.give(frame));
            }
            // Before the window is looked at, so that what comes in between wakes.
            self.moved.mark_unchanged();
            let (here, generation) = self
                .log
                .with_window(|window| (window.after(self.cursor), window.generation));
            if generation != self.generation {
                return Err(Cut::Replaced);
            }
            match here {
                Here::Next(frame) => return Ok(self.give(frame)),
                Here::UpToDate => {
                    self.live = true;
                    // The log holds the sender, and this holds the log.
                    let _ = self.moved.changed().await;
                }
                Here::Elsewhere if self.live => return Err(Cut::Slow),
                Here::Elsewhere => {
                    let frames = self.log.after(self.cursor).await?;
                    let frames = frames.map_err(Error::from)?;
                    if frames.is_empty() {
                        // The window lags behind the table; it wakes when it has caught up.
                        let _ = self.moved.changed().await;
                    }
                    self.read = frames.into();
                }
            }
        }
    }

    fn give(&mut self, frame: Frame) -> Frame {
        self.cursor = frame.cursor;
        frame
    }
}
