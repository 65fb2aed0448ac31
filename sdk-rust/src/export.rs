//! What the daemon writes for its callers: bundles and layouts, verified as they come.

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use sha2::{Digest, Sha256};

use banger_proto::v1;

use crate::error::{Error, Result};
use crate::stream::Watched;

/// A part of an export, whatever call it belongs to.
pub(crate) enum ExportPart {
    Start(v1::ExportStart),
    Chunk(Bytes),
    End(v1::ExportEnd),
    Idle,
}

/// The messages of an export.
pub(crate) trait ExportMessage: Send + 'static {
    /// What it is; `None` for what this SDK does not know.
    fn part(self) -> Option<ExportPart>;
}

/// An export under way: the daemon goes on as it is read, and gives up when this is dropped.
pub struct Export {
    start: v1::ExportStart,
    during: &'static str,
    parts: BoxStream<'static, Result<ExportPart>>,
    sum: Sha256,
    received: u64,
    digest: Option<String>,
}

impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Export")
            .field("start", &self.start)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

impl Export {
    /// Waits for the first message of `answers`, the answer to the call `during`.
    pub(crate) async fn begin<M: ExportMessage>(
        answers: Watched<M>,
        during: &'static str,
    ) -> Result<Self> {
        let parts = stream::unfold(answers, |mut answers| async {
            loop {
                let part = match answers.next().await {
                    Ok(None) => return None,
                    Ok(Some(message)) => match message.part() {
                        None | Some(ExportPart::Idle) => continue,
                        Some(part) => Ok(part),
                    },
                    Err(error) => Err(error),
                };
                return Some((part, answers));
            }
        });
        let mut parts = parts.boxed();
        match parts.next().await {
            Some(Ok(ExportPart::Start(start))) => Ok(Self {
                start,
                during,
                parts,
                sum: Sha256::new(),
                received: 0,
                digest: None,
            }),
            Some(Err(error)) => Err(error),
            _ => Err(Error::Protocol {
                during,
                detail: "no start",
            }),
        }
    }

    /// Bytes that the daemon will read for it, before compression: for progress.
    #[must_use]
    pub fn content_bytes(&self) -> u64 {
        u64::try_from(self.start.content_bytes).unwrap_or(0)
    }

    /// A bundle's manifest, as it is in the bundle; empty where what is exported is none.
    #[must_use]
    pub fn manifest(&self) -> &[u8] {
        &self.start.manifest
    }

    /// Bytes that have come.
    #[must_use]
    pub const fn received_bytes(&self) -> u64 {
        self.received
    }

    /// The digest of all bytes, in hexadecimal; known when all have come.
    #[must_use]
    pub fn sha256(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// What is exported, and which version of it; empty where there is none.
    #[must_use]
    pub fn name(&self) -> (&str, &str) {
        (&self.start.name, &self.start.version)
    }

    /// The next bytes; `None` when all have come and their digest is right. **Before that they may be anything.**
    ///
    /// # Errors
    /// When the export failed, was cut short or came damaged.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.digest.is_some() {
            return Ok(None);
        }
        let bad = |detail| Error::Protocol {
            during: self.during,
            detail,
        };
        match self.parts.next().await.transpose()? {
            Some(ExportPart::Chunk(bytes)) => {
                self.sum.update(&bytes);
                self.received += bytes.len() as u64;
                Ok(Some(bytes))
            }
            Some(ExportPart::End(end)) => {
                if u64::try_from(end.size_bytes) != Ok(self.received) {
                    return Err(bad("an export of another length"));
                }
                let sum = self.sum.finalize_reset();
                let hex: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
                if end.sha256 != hex {
                    return Err(bad("an export with another digest"));
                }
                self.digest = Some(hex);
                Ok(None)
            }
            Some(ExportPart::Start(_) | ExportPart::Idle) => Err(bad("a second start")),
            None => Err(bad("an export that is cut short")),
        }
    }
}
