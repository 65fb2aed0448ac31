//! The queue of boots: so many boot at once, the rest wait their turn, and more than may wait are refused.
//!
//! Fair among owners: each in turn, and within an owner who came first. So one who asks for five hundred VMs does
//! not keep the one VM of another waiting.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use banger_core::Owner;
use tokio::sync::oneshot;

use crate::error::AppError;

/// The shortest and the longest time after which a caller who found the queue full is told to come again.
const RETRY_SECONDS: std::ops::RangeInclusive<u64> = 1..=60;

/// Who boots, and who waits for it.
#[derive(Debug, Clone)]
pub(crate) struct BootQueue(Arc<Shared>);

/// How many boot and wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueState {
    /// That boot now.
    pub booting: usize,
    /// That were accepted and do not boot yet.
    pub waiting: usize,
    /// The most that boot at once.
    pub max_parallel: usize,
    /// The most that wait.
    pub max_waiting: usize,
}

#[derive(Debug)]
struct Shared {
    max_parallel: usize,
    max_waiting: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Accepted, whether they boot already or not.
    tickets: usize,
    booting: usize,
    /// Whose turn it is next comes first; no line is empty.
    lines: VecDeque<(Owner, VecDeque<Waiter>)>,
    next_number: u64,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    turn: oneshot::Sender<Slot>,
}

/// The right to wait. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Ticket(Arc<Shared>);

/// The right to boot. Given to the next when dropped.
#[derive(Debug)]
pub(crate) struct Slot(Option<Arc<Shared>>);

impl BootQueue {
    pub(crate) fn new(max_parallel: usize, max_waiting: usize) -> Self {
        Self(Arc::new(Shared {
            max_parallel: max_parallel.max(1),
            max_waiting,
            state: Mutex::default(),
        }))
    }

    /// Accepts a boot to come.
    ///
    /// # Errors
    /// If as many as may wait are waiting.
    pub(crate) fn ticket(&self) -> Result<Ticket, AppError> {
        let mut state = self.0.lock();
        let limit = self.0.max_parallel + self.0.max_waiting;
        if state.tickets >= limit {
            return Err(AppError::BootQueueFull {
                waiting: state.tickets.saturating_sub(self.0.max_parallel),
                limit: self.0.max_waiting,
                retry_after: self.0.retry_after(state.tickets),
            });
        }
        state.tickets += 1;
        Ok(Ticket(self.0.clone()))
    }

    pub(crate) fn state(&self) -> QueueState {
        let state = self.0.lock();
        QueueState {
            booting: state.booting,
            waiting: state.tickets.saturating_sub(state.booting),
            max_parallel: self.0.max_parallel,
            max_waiting: self.0.max_waiting,
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A guess: one second for each round of boots that is ahead.
    fn retry_after(&self, ahead: usize) -> Duration {
        let rounds = u64::try_from(ahead / self.max_parallel).unwrap_or(u64::MAX);
        Duration::from_secs(rounds.clamp(*RETRY_SECONDS.start(), *RETRY_SECONDS.end()))
    }

    /// Gives free slots to whoever is next.
    fn serve(self: &Arc<Self>) {
        loop {
            let next = {
                let mut state = self.lock();
                if state.booting >= self.max_parallel {
                    return;
                }
                let Some(next) = state.next() else { return };
                state.booting += 1;
                next
            };
            // Outside the lock: a slot that nobody takes would lock again when dropped.
            if let Err(mut slot) = next.turn.send(Slot(Some(self.clone()))) {
                slot.0 = None;
                self.lock().booting -= 1;
            }
        }
    }
}

impl State {
    fn enter(&mut self, owner: &Owner, turn: oneshot::Sender<Slot>) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        let waiter = Waiter { number, turn };
        match self.lines.iter_mut().find(|(whose, _)| whose == owner) {
            Some((_, line)) => line.push_back(waiter),
            None => self
                .lines
                .push_back((owner.clone(), VecDeque::from([waiter]))),
        }
        number
    }

    /// The first of the first line, which then goes behind the others.
    fn next(&mut self) -> Option<Waiter> {
        let (owner, mut line) = self.lines.pop_front()?;
        let next = line.pop_front();
        if !line.is_empty() {
            self.lines.push_back((owner, line));
        }
        next
    }

    fn leave(&mut self, number: u64) {
        for (_, line) in &mut self.lines {
            line.retain(|waiter| waiter.number != number);
        }
        self.lines.retain(|(_, line)| !line.is_empty());
    }
}

impl Ticket {
    /// Waits until it is `owner`'s turn. Safe to drop: the place in the line is given up.
    pub(crate) async fn turn(&self, owner: Owner) -> Slot {
        let (turn, granted) = oneshot::channel();
        let number = self.0.lock().enter(&owner, turn);
        let place = Place {
            shared: &self.0,
            number,
        };
        self.0.serve();
        let slot = granted.await;
        drop(place);
        slot.expect(
            "whoever takes a waiter out of its line gives it a slot, or is the waiter itself",
        )
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.lock().tickets -= 1;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            shared.lock().booting -= 1;
            shared.serve();
        }
    }
}

/// A place in a line, left when dropped.
struct Place<'q> {
    shared: &'q Shared,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.lock().leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn owner(uid: u32) -> Owner {
        Owner::of_uid(uid)
    }

    fn counts(queue: &BootQueue) -> (usize, usize) {
        let state = queue.state();
        (state.booting, state.waiting)
    }

    #[test]
    fn more_than_may_wait_are_refused_and_told_when_to_come_again() {
        let queue = BootQueue::new(2, 3);
        let tickets: Vec<Ticket> = (0..5).map(|_| queue.ticket().unwrap()).collect();
        let refused = queue.ticket().unwrap_err();
        assert_eq!(
            refused.to_string(),
            "3 boots are waiting already, which is the most that may"
        );
        let AppError::BootQueueFull { retry_after, .. } = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(retry_after, Duration::from_secs(2));
        drop(tickets);
        assert!(queue.ticket().is_ok());
    }

    #[test]
    fn only_so_many_boot_at_once_and_the_next_follows() {
        let queue = BootQueue::new(1, 9);
        let (first, second) = (queue.ticket().unwrap(), queue.ticket().unwrap());
        let slot = first.turn(owner(1)).now_or_never().unwrap();
        let mut waiting = Box::pin(second.turn(owner(1)));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(counts(&queue), (1, 1));
        drop(slot);
        let slot = waiting.now_or_never().unwrap();
        assert_eq!(counts(&queue), (1, 1));
        drop((first, slot));
        assert_eq!(counts(&queue), (0, 1));
        drop(second);
        assert_eq!(counts(&queue), (0, 0));
    }

    #[test]
    fn owners_take_turns_and_within_one_the_first_comes_first() {
        let queue = BootQueue::new(1, 9);
        let tickets: Vec<Ticket> = (0..6).map(|_| queue.ticket().unwrap()).collect();
        let mut held = tickets[0].turn(owner(1)).now_or_never();
        assert!(held.is_some());
        let whose = [1, 1, 1, 2, 3];
        let mut waiting: Vec<_> = tickets[1..]
            .iter()
            .zip(whose)
            .map(|(ticket, uid)| Box::pin(async move { ticket.turn(owner(uid)).await }))
            .collect();
        for turn in &mut waiting {
            assert!(turn.as_mut().now_or_never().is_none());
        }
        let mut order = Vec::new();
        let mut left: Vec<usize> = (0..waiting.len()).collect();
        while !left.is_empty() {
            drop(held.take());
            let at = left
                .iter()
                .position(|&index| {
                    held = waiting[index].as_mut().now_or_never();
                    held.is_some()
                })
                .expect("somebody is next");
            order.push(left.remove(at));
        }
        // The three of the first owner are 0, 1 and 2.
        assert_eq!(order, [0, 3, 4, 1, 2]);
    }

    #[test]
    fn a_wait_that_is_given_up_blocks_nobody() {
        let queue = BootQueue::new(1, 9);
        let tickets: Vec<Ticket> = (0..4).map(|_| queue.ticket().unwrap()).collect();
        let slot = tickets[0].turn(owner(1)).now_or_never().unwrap();
        let mut given_up = Box::pin(tickets[1].turn(owner(1)));
        let mut granted_and_dropped = Box::pin(tickets[2].turn(owner(1)));
        let mut last = Box::pin(tickets[3].turn(owner(1)));
        assert!(given_up.as_mut().now_or_never().is_none());
        assert!(granted_and_dropped.as_mut().now_or_never().is_none());
        assert!(last.as_mut().now_or_never().is_none());
        drop(given_up);
        drop(slot);
        // It has its slot by now, and never looks.
        drop(granted_and_dropped);
        let slot = last.now_or_never().expect("the slot was passed on");
        drop((slot, tickets));
        assert_eq!(counts(&queue), (0, 0));
    }
}
