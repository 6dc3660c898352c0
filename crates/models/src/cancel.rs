//! A switch that ends a pull, an import or a check from another thread.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::error::Error;

/// Cancels the work it was given to. Cheap to clone; all clones are one switch, and it stays thrown.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    inner: Arc<(Mutex<bool>, Condvar)>,
}

impl Cancel {
    /// A switch that nobody has thrown.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the work soon. What was downloaded is kept.
    pub fn cancel(&self) {
        *self.inner.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.inner.1.notify_all();
    }

    /// Whether somebody cancelled.
    pub fn is_cancelled(&self) -> bool {
        *self.inner.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails if somebody cancelled.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.is_cancelled() {
            true => Err(Error::cancelled()),
            false => Ok(()),
        }
    }

    /// Waits so long, or fails at once when somebody cancels.
    pub(crate) fn wait(&self, time: Duration) -> Result<(), Error> {
        let (thrown, changed) = &*self.inner;
        let thrown = thrown.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(thrown, time, |thrown| !*thrown);
        let (thrown, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match *thrown {
            true => Err(Error::cancelled()),
            false => Ok(()),
        }
    }
}
