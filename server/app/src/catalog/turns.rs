//! Whose turn it is, by name: the others who want the same wait, and are handed what it left.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use banger_core::Name;
use tokio::sync::OwnedMutexGuard;

type Turn<T> = tokio::sync::Mutex<T>;

/// The turns of those who go on or wait.
#[derive(Debug)]
pub(super) struct Turns<T>(Mutex<HashMap<Name, Weak<Turn<T>>>>);

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Default> Turns<T> {
    /// Waits for whoever has the turn of that name now. Cancel-safe: a place in the queue is given up.
    pub(super) async fn of(&self, name: &Name) -> OwnedMutexGuard<T> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let known = turns.get(name).and_then(Weak::upgrade);
            let turn = known.unwrap_or_default();
            turns.insert(name.clone(), Arc::downgrade(&turn));
            turn
        };
        turn.lock_owned().await
    }
}
