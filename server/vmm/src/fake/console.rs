//! The console of a fake VM: all of it, in memory.

use std::io;

use async_trait::async_trait;
use banger_core::vmm::{Console, ConsoleChunk};
use bytes::Bytes;
use tokio::sync::watch;

#[derive(Debug)]
pub(super) struct FakeConsole(watch::Sender<Vec<u8>>);

impl Default for FakeConsole {
    fn default() -> Self {
        Self(watch::Sender::new(Vec::new()))
    }
}

impl FakeConsole {
    pub(super) fn append(&self, bytes: &[u8]) {
        self.0.send_modify(|log| log.extend_from_slice(bytes));
    }
}

#[async_trait]
impl Console for FakeConsole {
    async fn read(&self, offset: u64, max_bytes: usize) -> io::Result<ConsoleChunk> {
        let log = self.0.borrow();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(log.len());
        let end = start.saturating_add(max_bytes).min(log.len());
        let offset = u64::try_from(start).expect("a length fits");
        Ok(ConsoleChunk {
            offset,
            data: Bytes::copy_from_slice(&log[start..end]),
        })
    }

    async fn grown(&self, offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let grown = |log: &Vec<u8>| log.len() > offset;
        let mut log = self.0.subscribe();
        log.wait_for(grown)
            .await
            .map(drop)
            .map_err(io::Error::other)
    }
}
