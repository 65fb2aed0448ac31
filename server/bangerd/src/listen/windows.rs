//! How much a caller may send that nobody has taken yet, over all its connections.
//!
//! HTTP/2 bounds that by windows, of a stream and of a connection, and what a guest takes none of stays in the daemon's
//! memory for as long. So windows are handed out: a caller's first connections have wide ones, for bulk and for streams
//! that stand still beside others that go on, and whoever has many connections has narrow ones on all others. Together
//! they stay below [`CALLER_BYTES_MAX`] however many connections there are.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use banger_core::Owner;
use futures::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::connection::Connection;

/// What a caller's connections may have under way together, with as many of them as it may have by default at the unix
/// socket (1024), in bytes.
pub const CALLER_BYTES_MAX: u64 = 1 << 30;
/// Connections that wait to be served in each window.
const WAITING_MAX: usize = 64;

/// The windows of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// As much as keeps a bulk stream from waiting for the other side, and more than a few guests hold up that take
    /// nothing of what is sent to them.
    Wide,
    /// Half as fast where the other side is far away, and an eighth of the room.
    Middle,
    /// What HTTP/2 clients commonly have: fast where the other side is near.
    Narrow,
}

impl Window {
    /// All, the widest first.
    pub const ALL: [Self; 3] = [Self::Wide, Self::Middle, Self::Narrow];

    /// Of one stream, in bytes.
    #[must_use]
    pub const fn stream(self) -> u32 {
        match self {
            Self::Wide => 4 << 20,
            Self::Middle => 2 << 20,
            Self::Narrow => 128 << 10,
        }
    }

    /// Of one connection, in bytes.
    #[must_use]
    pub const fn connection(self) -> u32 {
        match self {
            Self::Wide => 128 << 20,
            Self::Middle => 16 << 20,
            Self::Narrow => 512 << 10,
        }
    }

    /// How many of a caller's connections have it; `None` for all that are left.
    const fn places(self) -> Option<usize> {
        match self {
            Self::Wide => Some(2),
            Self::Middle => Some(8),
            Self::Narrow => None,
        }
    }
}

/// Which windows callers' connections have.
#[derive(Debug, Clone, Default)]
pub struct Windows(Arc<Mutex<HashMap<Owner, Taken>>>);

/// How many connections of one caller have each of the windows.
type Taken = [usize; Window::ALL.len()];

impl Windows {
    fn with<T>(&self, change: impl FnOnce(&mut HashMap<Owner, Taken>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The widest that `owner` may have on one more connection, for as long as the share is kept.
    #[must_use]
    pub fn share(&self, owner: &Owner) -> Share {
        let window = self.with(|all| {
            let taken = all.entry(owner.clone()).or_default();
            let is_free = |window: &Window| {
                let places = window.places();
                places.is_none_or(|places| taken[*window as usize] < places)
            };
            let window = Window::ALL.into_iter().find(is_free);
            let window = window.unwrap_or(Window::Narrow);
            taken[window as usize] += 1;
            window
        });
        Share {
            windows: self.clone(),
            owner: owner.clone(),
            window,
        }
    }

    /// Sorts `connections` by the windows that they get: streams in the order of [`Window::ALL`], and what keeps them
    /// going until there are no more connections, or nobody takes them.
    pub fn sort(
        self,
        connections: impl Stream<Item = io::Result<Connection>>,
    ) -> (
        [ReceiverStream<io::Result<Connection>>; Window::ALL.len()],
        impl Future<Output = ()>,
    ) {
        let lanes = Window::ALL.map(|_| mpsc::channel(WAITING_MAX));
        let senders = lanes.each_ref().map(|(sender, _)| sender.clone());
        let sorting = async move {
            let mut connections = std::pin::pin!(connections);
            while let Some(connection) = connections.next().await {
                let (window, connection) = match connection {
                    Ok(connection) => self.hand_out(connection),
                    Err(error) => (Window::Wide, Err(error)),
                };
                if senders[window as usize].send(connection).await.is_err() {
                    return;
                }
            }
        };
        (lanes.map(|(_, lane)| ReceiverStream::new(lane)), sorting)
    }

    fn hand_out(&self, connection: Connection) -> (Window, io::Result<Connection>) {
        // Who is refused sends nothing that is waited for.
        let Ok(identity) = connection.peer().known() else {
            return (Window::Narrow, Ok(connection));
        };
        let share = self.share(&identity.owner);
        (share.window, Ok(connection.holding(share)))
    }
}

/// One connection's windows. Others may have them when it is dropped.
#[derive(Debug)]
pub struct Share {
    windows: Windows,
    owner: Owner,
    window: Window,
}

impl Share {
    /// Which.
    #[must_use]
    pub const fn window(&self) -> Window {
        self.window
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let owner = self.owner.clone();
        self.windows.with(|all| {
            if let Entry::Occupied(mut taken) = all.entry(owner) {
                taken.get_mut()[self.window as usize] -= 1;
                if taken.get().iter().all(|taken| *taken == 0) {
                    taken.remove();
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LimitsConfig, TcpConfig};

    #[test]
    fn a_caller_with_all_its_connections_stays_below_the_bound() {
        let windows = Windows::default();
        let owner = Owner::of_uid(3_999_999_999);
        let most = LimitsConfig::default()
            .socket_connections_per_user_max
            .max(TcpConfig::default().connections_per_identity_max);
        let shares: Vec<_> = (0..most).map(|_| windows.share(&owner)).collect();
        let bytes = |share: &Share| u64::from(share.window().connection());
        let sum: u64 = shares.iter().map(bytes).sum();
        assert!(sum <= CALLER_BYTES_MAX, "{sum}");
        assert_eq!(shares[0].window(), Window::Wide);
        assert_eq!(shares[2].window(), Window::Middle);
        assert_eq!(shares[most - 1].window(), Window::Narrow);
        for window in Window::ALL {
            assert!(window.stream() < window.connection(), "{window:?}");
        }
    }

    #[test]
    fn a_wide_one_that_is_given_back_goes_to_the_next_and_others_have_their_own() {
        let windows = Windows::default();
        let owner = Owner::of_uid(3_999_999_999);
        let mut shares: Vec<_> = (0..20).map(|_| windows.share(&owner)).collect();
        drop(shares.swap_remove(1));
        assert_eq!(windows.share(&owner).window(), Window::Wide);
        let other = windows.share(&Owner::of_uid(3_999_999_998));
        assert_eq!(other.window(), Window::Wide);
        drop((shares, other));
        windows.with(|all| assert!(all.is_empty()));
    }
}
