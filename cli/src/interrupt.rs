//! Signals to this process, as events.

use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// Two interrupts within this time mean: end it now.
const TWICE_WITHIN: Duration = Duration::from_secs(2);

/// A signal that somebody sent us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// SIGINT, by Ctrl-C as a rule.
    Interrupt,
    /// SIGINT again, soon after.
    InterruptAgain,
    /// SIGTERM, SIGHUP or SIGQUIT: end, and clean up.
    Terminate(i32),
    /// SIGWINCH: the terminal has another size.
    Resized,
}

/// The signals to this process, from now on.
#[derive(Debug)]
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    quit: Signal,
    resized: Signal,
    last_interrupt: Option<Instant>,
}

impl Interrupts {
    /// Takes the signals over.
    pub(crate) fn new() -> Result<Self, Failure> {
        let take = |kind| signal(kind).map_err(|source| Failure::Runtime { source });
        Ok(Self {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            hangup: take(SignalKind::hangup())?,
            quit: take(SignalKind::quit())?,
            resized: take(SignalKind::window_change())?,
            last_interrupt: None,
        })
    }

    /// The next signal. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Sent {
        tokio::select! {
            // each arm is cancel-safe: `recv` loses no signal
            _ = self.interrupt.recv() => self.interrupted(),
            _ = self.terminate.recv() => Sent::Terminate(SignalKind::terminate().as_raw_value()),
            _ = self.hangup.recv() => Sent::Terminate(SignalKind::hangup().as_raw_value()),
            _ = self.quit.recv() => Sent::Terminate(SignalKind::quit().as_raw_value()),
            _ = self.resized.recv() => Sent::Resized,
        }
    }

    /// The number of the next signal that asks us to end. Cancel-safe.
    pub(crate) async fn end(&mut self) -> i32 {
        loop {
            match self.next().await {
                Sent::Interrupt | Sent::InterruptAgain => {
                    return SignalKind::interrupt().as_raw_value();
                }
                Sent::Terminate(signal) => return signal,
                Sent::Resized => {}
            }
        }
    }

    fn interrupted(&mut self) -> Sent {
        let now = Instant::now();
        let before = self.last_interrupt.replace(now);
        match before {
            Some(before) if now.duration_since(before) <= TWICE_WITHIN => Sent::InterruptAgain,
            _ => Sent::Interrupt,
        }
    }
}
