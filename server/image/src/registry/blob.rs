//! A blob as a stream of chunks that survives broken connections: it resumes where it stopped.

use banger_core::Digest;
use bytes::{Buf, Bytes};
use reqwest::Response;
use reqwest::header::RANGE;

use super::client::{Registry, back_off};
use super::error::RegistryError;
use crate::limits::TRIES_MAX;

/// Tries count anew after this much has come: a long download may break off now and then.
const PROGRESS_BYTES: u64 = 8 << 20;

/// A blob being received.
#[derive(Debug)]
pub(crate) struct BlobStream<'a> {
    registry: &'a Registry,
    digest: Digest,
    answer: Option<Response>,
    received: u64,
    /// Bytes the current answer repeats, because the registry does not know ranges.
    repeated: u64,
    tried: u32,
    progress_mark: u64,
}

impl Registry {
    /// A blob; nothing is sent before the first chunk is asked for.
    pub(crate) fn blob(&self, digest: Digest) -> BlobStream<'_> {
        BlobStream {
            registry: self,
            digest,
            answer: None,
            received: 0,
            repeated: 0,
            tried: 0,
            progress_mark: PROGRESS_BYTES,
        }
    }
}

impl BlobStream<'_> {
    /// The next chunk; `None` at the end of the answer, which may be too early or too late: the receiver
    /// counts. Cancel-safe only by giving the stream up.
    pub(crate) async fn next_chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            match self.try_next().await {
                Err(error) if error.is_transient() && self.tried < TRIES_MAX => {
                    self.answer = None;
                    back_off(&error, self.tried).await;
                }
                result => return result,
            }
        }
    }

    async fn try_next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        if self.answer.is_none() {
            self.tried += 1;
            self.answer = Some(self.open().await?);
        }
        let answer = self.answer.as_mut().expect("opened above");
        while let Some(mut chunk) = self.registry.peer.in_time(answer.chunk()).await? {
            let skipped = self.repeated.min(chunk.len() as u64);
            self.repeated -= skipped;
            chunk.advance(usize::try_from(skipped).expect("at most the chunk's length"));
            if chunk.is_empty() {
                continue;
            }
            self.received += chunk.len() as u64;
            if self.received >= self.progress_mark {
                self.progress_mark = self.received + PROGRESS_BYTES;
                self.tried = 1;
            }
            return Ok(Some(chunk));
        }
        Ok(None)
    }

    async fn open(&mut self) -> Result<Response, RegistryError> {
        let url = self.registry.url("blobs", &self.digest.to_string())?;
        let from = self.received;
        let answer = self
            .registry
            .get(|client| {
                let request = client.get(url.clone());
                if from > 0 {
                    request.header(RANGE, format!("bytes={from}-"))
                } else {
                    request
                }
            })
            .await?;
        let begins = |answer: &Response| -> Option<u64> {
            let text = answer.headers().get("content-range")?.to_str().ok()?;
            text.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
        };
        match answer.status().as_u16() {
            200 => self.repeated = from,
            206 if from > 0 && begins(&answer) == Some(from) => self.repeated = 0,
            206 => {
                return Err(RegistryError::Malformed {
                    registry: self.registry.peer.registry.clone(),
                    what: "range",
                });
            }
            _ => return Err(self.registry.blob_refusal(&answer, self.digest)),
        }
        Ok(answer)
    }
}
