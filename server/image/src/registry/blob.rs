//! A blob as a stream of chunks that survives broken connections: it resumes where it stopped, if need be at
//! the next place that serves it.

use std::sync::atomic::Ordering;

use banger_core::Digest;
use banger_core::operation::Progress;
use bytes::{Buf, Bytes};
use reqwest::Response;
use reqwest::header::{CONTENT_RANGE, RANGE};

use super::client::{Registry, tell_next};
use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::retry::{back_off, is_worth_it};
use crate::transport::pace::Pace;

/// Tries count anew after this much has come: a long download may break off now and then.
const PROGRESS_BYTES: u64 = 8 << 20;

/// A blob being received.
#[derive(Debug)]
pub(crate) struct BlobStream<'a> {
    registry: &'a Registry,
    digest: Digest,
    size: u64,
    /// Which of the registry's places sent the first byte; the one that is asked until then.
    began: usize,
    /// Which of them is asked.
    place: usize,
    answer: Option<(Response, Pace)>,
    received: u64,
    /// Bytes the current answer repeats, because the registry does not know ranges.
    repeated: u64,
    tried: u32,
    progress_mark: u64,
}

impl Registry {
    /// A blob of so many bytes; nothing is sent before the first chunk is asked for.
    pub(crate) fn blob(&self, digest: Digest, size: u64) -> BlobStream<'_> {
        self.blob_at(digest, size, self.serving.load(Ordering::Relaxed))
    }

    /// The same blob from its beginning, after a stream that ended well but with other bytes than it should have: from a
    /// place that has not sent them alone, where there is one.
    pub(crate) fn blob_elsewhere(
        &self,
        wrong: &BlobStream<'_>,
        error: &dyn std::error::Error,
    ) -> Option<BlobStream<'_>> {
        // Of several who sent parts the last may be right.
        let place = wrong.place + usize::from(wrong.began == wrong.place);
        self.endpoints.get(place)?;
        tell_next(wrong.endpoint(), error);
        self.serving.fetch_max(place, Ordering::Relaxed);
        Some(self.blob_at(wrong.digest, wrong.size, place))
    }

    fn blob_at(&self, digest: Digest, size: u64, place: usize) -> BlobStream<'_> {
        BlobStream {
            registry: self,
            digest,
            size,
            began: place,
            place,
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
    pub(crate) async fn next_chunk(
        &mut self,
        progress: &dyn Progress,
    ) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let error = match self.try_next().await {
                Err(error) => error,
                chunk => return chunk,
            };
            // It broke off after the last byte: there is no more to ask for.
            if self.received > 0 && self.received == self.size {
                return Ok(None);
            }
            self.answer = None;
            let endpoint = self.endpoint();
            if self.tried < endpoint.tries && is_worth_it(&error) {
                back_off(&error, self.tried, progress).await;
            } else if self.place + 1 < self.registry.endpoints.len() {
                tell_next(endpoint, &error);
                (self.place, self.tried) = (self.place + 1, 0);
            } else {
                return Err(error);
            }
        }
    }

    fn endpoint(&self) -> &Endpoint {
        &self.registry.endpoints[self.place]
    }

    async fn try_next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let endpoint = &self.registry.endpoints[self.place];
        if self.answer.is_none() {
            self.tried += 1;
            self.answer = Some((self.open().await?, endpoint.pace()));
        }
        let (answer, pace) = self.answer.as_mut().expect("opened above");
        while let Some(mut chunk) = endpoint.chunk(answer, pace).await? {
            let skipped = self.repeated.min(chunk.len() as u64);
            self.repeated -= skipped;
            chunk.advance(usize::try_from(skipped).expect("at most the chunk's length"));
            if chunk.is_empty() {
                continue;
            }
            if self.received == 0 {
                self.began = self.place;
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
        let from = self.received;
        let endpoint = self.endpoint();
        let answer = endpoint
            .get("blobs", &self.digest.to_string(), |request| {
                if from > 0 {
                    request.header(RANGE, format!("bytes={from}-"))
                } else {
                    request
                }
            })
            .await?;
        let begins = |answer: &Response| -> Option<u64> {
            let text = answer.headers().get(CONTENT_RANGE)?.to_str().ok()?;
            text.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
        };
        match answer.status().as_u16() {
            200 => self.repeated = from,
            206 if from > 0 && begins(&answer) == Some(from) => self.repeated = 0,
            206 => {
                return Err(RegistryError::Malformed {
                    registry: endpoint.name.clone(),
                    what: "range",
                });
            }
            404 => {
                return Err(RegistryError::BlobNotFound {
                    registry: endpoint.name.clone(),
                    digest: self.digest,
                });
            }
            _ => return Err(endpoint.refusal(&answer, "a blob").await),
        }
        Ok(answer)
    }
}
