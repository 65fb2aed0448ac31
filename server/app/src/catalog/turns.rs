//! Whose turn it is, by name: the others who want the same wait, and are handed what it left.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use banger_core::Name;
use tokio::sync::OwnedMutexGuard;

type Turn<T> = tokio::sync::Mutex<T>;

/// What is shared under a name, for as long as somebody has it.
#[derive(Debug)]
pub(super) struct Shared<T>(HashMap<Name, Weak<T>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Default> Shared<T> {
    pub(super) fn of(&mut self, name: &Name) -> Arc<T> {
        self.0.retain(|_, shared| shared.strong_count() > 0);
        let known = self.0.get(name).and_then(Weak::upgrade);
        let shared = known.unwrap_or_default();
        self.0.insert(name.clone(), Arc::downgrade(&shared));
        shared
    }
}

/// The turns of those who go on or wait.
#[derive(Debug)]
pub(super) struct Turns<T>(Mutex<Shared<Turn<T>>>);

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Default> Turns<T> {
    /// Waits for whoever has the turn of that name now. Cancel-safe: a place in the queue is given up.
    pub(super) async fn of(&self, name: &Name) -> OwnedMutexGuard<T> {
        // Each section leaves the names consistent, so a panic elsewhere spoils nothing.
        let turn = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .of(name);
        turn.lock_owned().await
    }
}
