//! A file over HTTP, as a stream that survives broken connections: it goes on where it stopped (RFC 9110 §14).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use reqwest::header::{CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};

use super::error::SourceError;
use super::source::SourceOptions;
use crate::limits::{BACKOFF_FIRST, BACKOFF_MAX, TRIES_MAX};
use crate::registry::retry::retry_after;
use crate::transport::fence::{Fence, proxies};
use crate::transport::pace::Pace;
use crate::transport::tls::{self, TlsFileError, TlsProblem, Trust};
use crate::transport::{Peer, TlsSettings, settings_of};

/// Tries count anew after this much has come: a long download may break off now and then.
const PROGRESS_BYTES: u64 = 8 << 20;

/// Whether the whole length is known before.
#[derive(Debug, Clone, Copy)]
pub(super) enum Length {
    Exactly(u64),
    AtMost(u64),
}

/// A client for the catalog at `base`; connects to nothing yet.
pub(super) fn client(
    options: &SourceOptions,
    base: &Url,
    is_plain: bool,
) -> Result<Client, SourceError> {
    let server = server_of(base);
    let host = base.host_str().unwrap_or_default();
    let known = options.hosts.keys().map(|name| name.to_ascii_lowercase());
    let known = known.chain(proxies(|variable| std::env::var(variable).ok()));
    let fence = Arc::new(Fence::new(host, is_plain, known.collect()));
    let usual = TlsSettings::default();
    let peer = Peer {
        host,
        tls: settings_of(&options.hosts, &server).unwrap_or(&usual),
        trust: Trust::Verified,
        connect_timeout: options.connect_timeout,
    };
    let unusable = |TlsFileError { path, problem }| SourceError::TlsFile { path, problem };
    let mut builder = peer.client(&fence).map_err(unusable)?;
    if is_plain {
        builder = builder.redirect(same_host(host, &fence)).no_proxy();
    }
    builder.build().map_err(SourceError::Client)
}

/// Host and port of a URL, as settings and errors name them.
pub(super) fn server_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port_or_known_default() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// What is only on the loopback stays there, by TLS as well.
fn same_host(host: &str, fence: &Arc<Fence>) -> Policy {
    let (host, fence) = (host.to_owned(), Arc::clone(fence));
    Policy::custom(move |attempt| {
        if attempt.url().host_str() != Some(host.as_str()) {
            return attempt.error("it leads away from this host's loopback");
        }
        fence.judge(attempt)
    })
}

/// A file being received.
#[derive(Debug)]
pub(super) struct HttpStream {
    client: Client,
    url: Url,
    file: String,
    length: Length,
    stall: Duration,
    answer: Option<(Response, Pace)>,
    /// Of the first answer: later ones must be of the same content.
    etag: Option<HeaderValue>,
    received: u64,
    /// Bytes the current answer repeats, because the server does not know ranges.
    repeated: u64,
    tried: u32,
    progress_mark: u64,
}

impl HttpStream {
    /// Nothing is sent before the first chunk is asked for.
    pub(super) fn new(
        client: Client,
        url: Url,
        file: String,
        length: Length,
        stall: Duration,
    ) -> Self {
        Self {
            client,
            url,
            file,
            length,
            stall,
            answer: None,
            etag: None,
            received: 0,
            repeated: 0,
            tried: 0,
            progress_mark: PROGRESS_BYTES,
        }
    }

    /// The next chunk; `None` at the end, which is never before an exact length. Cancel-safe only by giving the
    /// stream up.
    pub(super) async fn next_chunk(&mut self) -> Result<Option<Bytes>, SourceError> {
        loop {
            match self.try_next().await {
                Err(error) if error.is_transient() && self.tried < TRIES_MAX => {
                    self.answer = None;
                    self.back_off(&error).await;
                }
                result => return result,
            }
        }
    }

    async fn try_next(&mut self) -> Result<Option<Bytes>, SourceError> {
        if matches!(self.length, Length::Exactly(size) if size == self.received) && self.tried > 0 {
            return Ok(None);
        }
        if self.answer.is_none() {
            self.tried += 1;
            self.answer = Some((self.open().await?, Pace::new(self.stall)));
        }
        loop {
            let (answer, pace) = self.answer.as_mut().expect("opened above");
            let begin = Instant::now();
            let chunk = in_time(&self.url, &self.file, self.stall, answer.chunk()).await?;
            let Some(mut chunk) = chunk else {
                return self.ended();
            };
            pace.note(begin.elapsed(), chunk.len())
                .map_err(|(window, bytes)| SourceError::TooSlow {
                    file: self.file.clone(),
                    window,
                    bytes,
                })?;
            let skipped = self.repeated.min(chunk.len() as u64);
            self.repeated -= skipped;
            chunk.advance(usize::try_from(skipped).expect("at most the chunk's length"));
            if chunk.is_empty() {
                continue;
            }
            self.received += chunk.len() as u64;
            self.check_length()?;
            if self.received >= self.progress_mark {
                self.progress_mark = self.received + PROGRESS_BYTES;
                self.tried = 1;
            }
            return Ok(Some(chunk));
        }
    }

    fn check_length(&self) -> Result<(), SourceError> {
        match self.length {
            Length::Exactly(expected) if self.received > expected => {
                Err(self.wrong_size(expected, self.received))
            }
            Length::AtMost(limit) if self.received > limit => Err(SourceError::TooLarge {
                file: self.file.clone(),
                limit,
            }),
            _ => Ok(()),
        }
    }

    /// An answer that ended well; too early is a server's lie about its length.
    fn ended(&self) -> Result<Option<Bytes>, SourceError> {
        match self.length {
            Length::Exactly(expected) if self.received < expected => {
                Err(self.wrong_size(expected, self.received))
            }
            _ => Ok(None),
        }
    }

    async fn open(&mut self) -> Result<Response, SourceError> {
        let mut request = self.client.get(self.url.clone());
        let from = self.received;
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
            if let Some(etag) = &self.etag {
                request = request.header(IF_RANGE, etag);
            }
        }
        let answer = in_time(&self.url, &self.file, self.stall, request.send()).await?;
        match answer.status().as_u16() {
            200 => {
                self.check_same(&answer)?;
                self.check_announced(answer.content_length())?;
                self.repeated = from;
            }
            206 if from > 0 => {
                self.check_same(&answer)?;
                let (begin, total) =
                    content_range(answer.headers()).ok_or_else(|| self.wrong_range())?;
                if begin != from {
                    return Err(self.wrong_range());
                }
                self.check_announced(total)?;
                self.repeated = 0;
            }
            206 => return Err(self.wrong_range()),
            // There is nothing after what has come: it became shorter.
            416 => {
                return Err(match self.length {
                    Length::Exactly(expected) => self.wrong_size(expected, from),
                    Length::AtMost(_) => self.wrong_range(),
                });
            }
            404 | 410 => {
                return Err(SourceError::Missing {
                    file: self.file.clone(),
                });
            }
            status => {
                return Err(SourceError::Status {
                    file: self.file.clone(),
                    status,
                    retry_after: retry_after(answer.headers()),
                });
            }
        }
        Ok(answer)
    }

    /// Whether an answer is of the same content as the first, as far as the server tells.
    fn check_same(&mut self, answer: &Response) -> Result<(), SourceError> {
        let etag = answer.headers().get(ETAG);
        // A weak tag promises nothing about bytes.
        let strong = etag
            .filter(|tag| !tag.as_bytes().starts_with(b"W/"))
            .cloned();
        match (&self.etag, strong) {
            (Some(first), Some(now)) if *first != now => Err(SourceError::Changed {
                file: self.file.clone(),
            }),
            (None, strong) if self.received == 0 => {
                self.etag = strong;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// What the server says of the whole length.
    fn check_announced(&self, announced: Option<u64>) -> Result<(), SourceError> {
        match (self.length, announced) {
            (Length::Exactly(expected), Some(actual)) if actual != expected => {
                Err(self.wrong_size(expected, actual))
            }
            (Length::AtMost(limit), Some(actual)) if actual > limit => Err(SourceError::TooLarge {
                file: self.file.clone(),
                limit,
            }),
            _ => Ok(()),
        }
    }

    fn wrong_size(&self, expected: u64, actual: u64) -> SourceError {
        SourceError::WrongSize {
            file: self.file.clone(),
            expected,
            actual,
        }
    }

    fn wrong_range(&self) -> SourceError {
        SourceError::WrongRange {
            file: self.file.clone(),
        }
    }

    /// Longer after each try, and as long as the server asks.
    async fn back_off(&self, error: &SourceError) {
        let wait = BACKOFF_FIRST * 2u32.saturating_pow(self.tried.saturating_sub(1).min(16));
        tracing::debug!(tried = self.tried, error = %banger_core::chain(error), "a request to a catalog failed, trying again");
        tokio::time::sleep(wait.min(BACKOFF_MAX).max(error.asked())).await;
    }
}

/// Waits for the next step of an exchange.
async fn in_time<T>(
    url: &Url,
    file: &str,
    stall: Duration,
    step: impl Future<Output = Result<T, reqwest::Error>>,
) -> Result<T, SourceError> {
    match tokio::time::timeout(stall, step).await {
        Ok(result) => result.map_err(|source| broken(url, file, source)),
        Err(_) => Err(SourceError::Stalled {
            file: file.to_owned(),
            stall,
        }),
    }
}

/// What a failed exchange is.
fn broken(url: &Url, file: &str, source: reqwest::Error) -> SourceError {
    let (server, file) = (server_of(url), file.to_owned());
    if source.is_redirect() {
        return SourceError::Redirected { file, source };
    }
    match tls::problem(&source) {
        Some(TlsProblem::NotTls) => SourceError::NotTls { server },
        Some(TlsProblem::Certificate(problem)) => SourceError::Certificate { server, problem },
        Some(TlsProblem::ClientCertificate) => SourceError::ClientCertificate { server },
        None => SourceError::Unreachable {
            file,
            source: source.without_url(), // the URL of a redirect may hold a signature
        },
    }
}

/// Where a part begins, and the length of the whole where it is told.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))
}
