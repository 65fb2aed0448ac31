//! Work that several callers want is done once: all watch one *flight*.
//!
//! The flight's task belongs to no caller. Each may leave; when the last one leaves, the work is cancelled.
//! Whoever joins late is told all progress there was.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use banger_core::Digest;
use banger_core::operation::{Progress, StageKey};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{BuiltImage, StoreError};

type Outcome = Result<BuiltImage, Arc<StoreError>>;

/// The flights of one store, by manifest.
#[derive(Debug, Default)]
pub(super) struct Flights {
    flights: Mutex<HashMap<Digest, Arc<Flight>>>,
}

#[derive(Debug)]
struct Flight {
    board: Arc<Board>,
    outcome: watch::Receiver<Option<Outcome>>,
    cancel: CancellationToken,
    /// Changed only under the lock of [`Flights::flights`].
    callers: Mutex<usize>,
}

/// A caller's place in a flight.
struct Seat<'a> {
    flights: &'a Flights,
    key: Digest,
    flight: Arc<Flight>,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut flights = lock(&self.flights.flights);
        let mut callers = lock(&self.flight.callers);
        *callers -= 1;
        if *callers > 0 {
            return;
        }
        self.flight.cancel.cancel();
        if flights
            .get(&self.key)
            .is_some_and(|flight| Arc::ptr_eq(flight, &self.flight))
        {
            flights.remove(&self.key);
        }
    }
}

impl Flights {
    /// Joins the flight for `key`, or starts one with `work`, and waits for its end. Dropping the future, or
    /// `cancel`, leaves the flight; the last to leave ends it, and by `cancel` also waits for its end.
    pub(super) async fn join<F>(
        &self,
        key: Digest,
        tracker: &TaskTracker,
        progress: &dyn Progress,
        cancel: &CancellationToken,
        work: impl FnOnce(Arc<Board>, CancellationToken) -> F,
    ) -> Result<BuiltImage, StoreError>
    where
        F: Future<Output = Result<BuiltImage, StoreError>> + Send + 'static,
    {
        let seat = self.seat(key, tracker, work);
        let mut outcome = seat.flight.outcome.clone();
        let mut view = View::default();
        let mut news = seat.flight.board.news.subscribe();
        let ended = loop {
            tokio::select! {
                biased; // the end before more progress; giving up before more waiting
                // cancel-safe: `wait_for` holds no state
                _ = outcome.wait_for(Option::is_some) => break true,
                // cancel-safe: `cancelled` holds no state
                () = cancel.cancelled() => break false,
                // cancel-safe: `changed` holds no state
                Ok(()) = news.changed() => view.show(&seat.flight.board, progress),
            }
        };
        if !ended {
            drop(seat);
            return self.left(key, outcome).await;
        }
        view.show(&seat.flight.board, progress);
        let ended = outcome.borrow().clone();
        match ended {
            Some(Ok(image)) => Ok(image),
            Some(Err(error)) => Err(StoreError::Shared(error)),
            None => Err(StoreError::Aborted),
        }
    }

    /// After a caller gave up: where it was the last, the end of the work is waited for. An image that came in the last
    /// moment is its: its files would be nobody's.
    async fn left(
        &self,
        key: Digest,
        mut outcome: watch::Receiver<Option<Outcome>>,
    ) -> Result<BuiltImage, StoreError> {
        if self.is_last(key)
            && let Ok(ended) = outcome.wait_for(Option::is_some).await
            && let Some(Ok(image)) = &*ended
        {
            return Ok(image.clone());
        }
        Err(StoreError::Cancelled)
    }

    /// Whether nobody flies for `key` any more.
    fn is_last(&self, key: Digest) -> bool {
        !lock(&self.flights).contains_key(&key)
    }

    fn seat<F>(
        &self,
        key: Digest,
        tracker: &TaskTracker,
        work: impl FnOnce(Arc<Board>, CancellationToken) -> F,
    ) -> Seat<'_>
    where
        F: Future<Output = Result<BuiltImage, StoreError>> + Send + 'static,
    {
        let mut flights = lock(&self.flights);
        // One that has ended is of the past: the image may have been removed since.
        if let Some(flight) = flights
            .get(&key)
            .filter(|flight| flight.outcome.borrow().is_none())
        {
            *lock(&flight.callers) += 1;
            return Seat {
                flights: self,
                key,
                flight: Arc::clone(flight),
            };
        }
        let (sender, outcome) = watch::channel(None);
        let flight = Arc::new(Flight {
            board: Arc::default(),
            outcome,
            cancel: CancellationToken::new(),
            callers: Mutex::new(1),
        });
        let work = work(Arc::clone(&flight.board), flight.cancel.clone());
        tracker.spawn(async move {
            let outcome = work.await.map_err(Arc::new);
            sender.send_replace(Some(outcome));
        });
        flights.insert(key, Arc::clone(&flight));
        Seat {
            flights: self,
            key,
            flight,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How far a flight is, for any number of watchers.
#[derive(Debug)]
pub(super) struct Board {
    stages: Mutex<Vec<(StageKey, StageState)>>,
    news: watch::Sender<()>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct StageState {
    total: Option<u64>,
    done: u64,
    finished: bool,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            stages: Mutex::default(),
            news: watch::Sender::new(()),
        }
    }
}

impl Board {
    fn update(&self, key: &StageKey, change: impl FnOnce(&mut StageState)) {
        let mut stages = lock(&self.stages);
        match stages.iter_mut().find(|(known, _)| known == key) {
            Some((_, state)) => change(state),
            None => {
                let mut state = StageState::default();
                change(&mut state);
                stages.push((key.clone(), state));
            }
        }
        drop(stages);
        self.news.send_replace(());
    }
}

impl Progress for Board {
    fn start(&self, key: &StageKey, total_bytes: Option<u64>) {
        self.update(key, |state| state.total = total_bytes);
    }

    fn advance(&self, key: &StageKey, delta_bytes: u64) {
        self.update(key, |state| state.done += delta_bytes);
    }

    fn finish(&self, key: &StageKey) {
        self.update(key, |state| state.finished = true);
    }
}

/// What one watcher was told.
#[derive(Debug, Default)]
struct View {
    told: BTreeMap<StageKey, StageState>,
}

impl View {
    /// Tells what is new.
    fn show(&mut self, board: &Board, progress: &dyn Progress) {
        let stages = lock(&board.stages).clone();
        for (key, state) in stages {
            let told = self.told.get(&key).copied();
            if told == Some(state) {
                continue;
            }
            if told.is_none_or(|told| told.total != state.total) {
                progress.start(&key, state.total);
            }
            let before = told.unwrap_or_default();
            if state.done > before.done {
                progress.advance(&key, state.done - before.done);
            }
            if state.finished && !before.finished {
                progress.finish(&key);
            }
            self.told.insert(key, state);
        }
    }
}

#[cfg(test)]
mod tests {
    use banger_core::operation::NoProgress;

    use super::super::{ImageStore, RegisterOptions, RegisterSource};
    use super::*;

    #[tokio::test]
    async fn an_image_that_came_in_the_last_moment_is_had_by_who_gave_it_up() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path()).unwrap();
        let path = dir.path().join("rootfs.tar");
        std::fs::write(&path, [0; 1024]).unwrap();
        let source = RegisterSource::RootfsTar {
            path,
            config: Box::default(),
        };
        let (options, cancel) = (RegisterOptions::default(), CancellationToken::new());
        let registered = store.register(source, &options, &NoProgress, &cancel);
        let image = registered.await.unwrap();
        let (flights, tracker) = (Flights::default(), TaskTracker::new());
        for is_done in [true, false] {
            let (cancel, image) = (CancellationToken::new(), image.clone());
            let giving_up = cancel.clone();
            let work = |_, cancelled: CancellationToken| async move {
                giving_up.cancel();
                cancelled.cancelled().await;
                is_done.then_some(image).ok_or(StoreError::Cancelled)
            };
            let joined = flights.join(Digest::of(b"x"), &tracker, &NoProgress, &cancel, work);
            match joined.await {
                Ok(_) => assert!(is_done),
                Err(StoreError::Cancelled) => assert!(!is_done),
                Err(error) => panic!("{error:?}"),
            }
        }
    }
}
