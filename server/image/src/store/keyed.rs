//! One lock per key, or some places per key, which exist only while somebody wants them.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

type Lock = tokio::sync::Mutex<()>;

/// What is shared by those who name the same key at the same time.
#[derive(Debug)]
struct Keyed<K, V>(Mutex<HashMap<K, Weak<V>>>);

impl<K, V> Default for Keyed<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V> Keyed<K, V> {
    fn of(&self, key: K, new: impl FnOnce() -> V) -> Arc<V> {
        let mut living = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        living.retain(|_, shared| shared.strong_count() > 0);
        let known = living.get(&key).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let shared = Arc::new(new());
            living.insert(key, Arc::downgrade(&shared));
            shared
        })
    }
}

/// Locks by key.
#[derive(Debug)]
pub(super) struct KeyedLocks<K>(Keyed<K, Lock>);

impl<K> Default for KeyedLocks<K> {
    fn default() -> Self {
        Self(Keyed::default())
    }
}

impl<K: Eq + Hash> KeyedLocks<K> {
    /// Waits for the lock of `key`. Cancel-safe.
    pub(super) async fn lock(&self, key: K) -> OwnedMutexGuard<()> {
        self.0.of(key, Lock::default).lock_owned().await
    }
}

/// Places by key, as many for each.
#[derive(Debug)]
pub(super) struct KeyedSlots<K> {
    slots: Keyed<K, Semaphore>,
    each: usize,
}

impl<K: Eq + Hash> KeyedSlots<K> {
    /// So many places for `each` key.
    pub(super) fn new(each: usize) -> Self {
        Self {
            slots: Keyed::default(),
            each,
        }
    }

    /// Waits for a place of `key`. Cancel-safe.
    pub(super) async fn acquire(&self, key: K) -> OwnedSemaphorePermit {
        let slots = self.slots.of(key, || Semaphore::new(self.each));
        slots.acquire_owned().await.expect("never closed")
    }
}
