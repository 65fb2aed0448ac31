//! Who writes to a session: any number at once, each detached when somebody takes over, and the terminal as large as
//! that of who came last.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::termios::Winsize;
use tokio_util::sync::CancellationToken;

/// The writers of a session.
#[derive(Debug, Default)]
pub struct Writers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// In the order in which they came.
    all: Vec<Entry>,
    next_key: u64,
}

#[derive(Debug)]
struct Entry {
    key: u64,
    size: Option<Winsize>,
    replaced: CancellationToken,
}

impl Writers {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every section leaves the list consistent, so a panic elsewhere spoils nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a writer, who is one while the value lives. `resize` gives the terminal the size that it has from then on.
    #[must_use]
    pub fn join(self: &Arc<Self>, resize: impl Fn(Winsize) + Send + Sync + 'static) -> Joined {
        let mut state = self.state();
        let key = state.next_key;
        state.next_key += 1;
        let replaced = CancellationToken::new();
        state.all.push(Entry {
            key,
            size: None,
            replaced: replaced.clone(),
        });
        Joined {
            writers: Arc::clone(self),
            key,
            replaced,
            resize: Box::new(resize),
        }
    }

    /// Ends all who write now.
    pub fn replace_all(&self) {
        for entry in self.state().all.drain(..) {
            entry.replaced.cancel();
        }
    }
}

/// One writer.
pub struct Joined {
    writers: Arc<Writers>,
    key: u64,
    replaced: CancellationToken,
    resize: Box<dyn Fn(Winsize) + Send + Sync>,
}

impl std::fmt::Debug for Joined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joined")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl Joined {
    /// Resolves when somebody took over.
    pub async fn replaced(&self) {
        self.replaced.cancelled().await;
    }

    /// Its terminal has this size; so has the session's, where that is for it to say.
    pub fn resize(&self, size: Winsize) {
        let mut state = self.writers.state();
        let Some(entry) = state.all.iter_mut().find(|entry| entry.key == self.key) else {
            return;
        };
        entry.size = Some(size);
        // Under the lock, so that two who resize at once do it in one order.
        if state.all.last().map(|entry| entry.key) == Some(self.key) {
            (self.resize)(size);
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        let mut state = self.writers.state();
        let was_newest = state.all.last().map(|entry| entry.key) == Some(self.key);
        state.all.retain(|entry| entry.key != self.key);
        let size = state.all.last().and_then(|entry| entry.size);
        if let Some(size) = size.filter(|_| was_newest) {
            (self.resize)(size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes that a terminal was given.
    type Given = Arc<Mutex<Vec<u16>>>;

    fn join(writers: &Arc<Writers>, given: &Given) -> Joined {
        let given = Arc::clone(given);
        writers.join(move |size| given.lock().unwrap().push(size.ws_col))
    }

    fn size(columns: u16) -> Winsize {
        Winsize {
            ws_row: 24,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        }
    }

    #[test]
    fn the_newest_writer_says_the_size_and_who_was_before_when_it_leaves() {
        let (writers, given) = (Arc::default(), Given::default());
        let first = join(&writers, &given);
        first.resize(size(80));
        let second = join(&writers, &given);
        second.resize(size(120));
        first.resize(size(90));
        assert_eq!(*given.lock().unwrap(), [80, 120]);
        drop(second);
        assert_eq!(*given.lock().unwrap(), [80, 120, 90]);
        let third = join(&writers, &given);
        drop(first);
        drop(third);
        assert_eq!(given.lock().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn who_takes_over_ends_those_before() {
        let (writers, given) = (Arc::default(), Given::default());
        let first = join(&writers, &given);
        writers.replace_all();
        let second = join(&writers, &given);
        first.replaced().await;
        assert!(!second.replaced.is_cancelled());
        first.resize(size(80));
        assert!(given.lock().unwrap().is_empty());
    }
}
