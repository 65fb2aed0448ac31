//! Requests to one registry for one repository: authenticated, retried, bounded.

use std::sync::{Arc, Once};
use std::time::Duration;

use banger_core::Digest;
use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use reqwest::header::{ACCEPT, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, Url};
use tokio::sync::Mutex;

use super::auth::{Authorization, authorize};
use super::options::{Credentials, PullOptions};
use super::{ImageReference, RegistryError};
use crate::document::MANIFEST_TYPES;
use crate::limits::{BACKOFF_FIRST, BACKOFF_MAX, MANIFEST_BYTES_MAX, TRIES_MAX};

/// Redirects followed for one request.
const REDIRECTS_MAX: usize = 5;
/// The wait a rate limit without a number means.
const RATE_LIMIT_WAIT: Duration = Duration::from_secs(30);

/// Who is spoken to, for errors and limits.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) registry: String,
    /// Whether it is spoken to without TLS.
    pub(super) is_plain: bool,
    stall: Duration,
}

/// A registry, seen from one repository.
#[derive(Clone)]
pub(crate) struct Registry {
    client: Client,
    pub(super) peer: Peer,
    reference: ImageReference,
    credentials: Option<Credentials>,
    authorization: Arc<Mutex<Option<Authorization>>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("reference", &self.reference)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// For `reference`; connects to nothing yet.
    pub(crate) fn new(
        reference: &ImageReference,
        options: &PullOptions,
    ) -> Result<Self, RegistryError> {
        install_tls_provider();
        let registry = reference.registry().to_owned();
        let host = registry
            .rsplit_once(':')
            .map_or(registry.as_str(), |(host, _)| host);
        let listed = options
            .plain_http
            .iter()
            .any(|entry| *entry == registry || entry == host);
        let is_plain = listed || reference.is_loopback();
        let mut builder = Client::builder()
            .user_agent(concat!("banger/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.connect_timeout)
            .redirect(redirects(is_plain));
        if reference.is_loopback() {
            builder = builder.no_proxy();
        }
        Ok(Self {
            client: builder.build().map_err(RegistryError::Client)?,
            peer: Peer {
                registry,
                is_plain,
                stall: options.stall_timeout,
            },
            reference: reference.clone(),
            credentials: options.credentials.clone(),
            authorization: Arc::default(),
        })
    }

    /// A manifest or index by tag or digest, with its digest.
    pub(crate) async fn manifest(
        &self,
        by: Option<Digest>,
    ) -> Result<(Bytes, Digest), RegistryError> {
        let expected = by.or(self.reference.digest());
        let name = by.map_or_else(
            || self.reference.tag_or_digest(),
            |digest| digest.to_string(),
        );
        let url = self.url("manifests", &name)?;
        let body = self
            .retried(|| self.try_manifest(url.clone()).boxed())
            .await?;
        let actual = Digest::of(&body);
        self.verified("a manifest", expected, actual)?;
        Ok((body, actual))
    }

    async fn try_manifest(&self, url: Url) -> Result<Bytes, RegistryError> {
        let accepted = MANIFEST_TYPES.join(", ");
        let answer = self
            .get(|client| client.get(url.clone()).header(ACCEPT, &accepted))
            .await?;
        match answer.status().as_u16() {
            200 => bounded(&self.peer, answer, MANIFEST_BYTES_MAX, "a manifest").await,
            404 => Err(RegistryError::NotFound {
                reference: self.reference.to_string(),
            }),
            _ => Err(self.refusal(&answer, "a manifest")),
        }
    }

    /// A small blob, whole.
    pub(crate) async fn small_blob(
        &self,
        digest: Digest,
        size: u64,
        what: &'static str,
    ) -> Result<Bytes, RegistryError> {
        let url = self.url("blobs", &digest.to_string())?;
        let attempt = || self.try_small_blob(url.clone(), digest, size, what).boxed();
        let body = self.retried(attempt).await?;
        self.verified(what, Some(digest), Digest::of(&body))?;
        Ok(body)
    }

    async fn try_small_blob(
        &self,
        url: Url,
        digest: Digest,
        size: u64,
        what: &'static str,
    ) -> Result<Bytes, RegistryError> {
        let answer = self.get(|client| client.get(url.clone())).await?;
        match answer.status().as_u16() {
            200 => bounded(&self.peer, answer, size, what).await,
            _ => Err(self.blob_refusal(&answer, digest)),
        }
    }

    /// Sends a GET, meeting one challenge if there is one.
    pub(super) async fn get(
        &self,
        request: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let known = self.authorization.lock().await.clone();
        let authorized = |authorization: &Option<Authorization>| match authorization {
            Some(authorization) => authorization.apply(request(&self.client)),
            None => request(&self.client),
        };
        let answer = self.peer.send(authorized(&known)).await?;
        if answer.status().as_u16() != 401 {
            return Ok(answer);
        }
        let fresh = authorize(
            &self.client,
            &self.peer,
            &self.reference,
            self.credentials.as_ref(),
            answer.headers(),
        )
        .await?;
        let fresh = Some(fresh);
        let answer = self.peer.send(authorized(&fresh)).await?;
        *self.authorization.lock().await = fresh;
        Ok(answer)
    }

    pub(super) fn url(&self, kind: &str, name: &str) -> Result<Url, RegistryError> {
        let scheme = if self.peer.is_plain { "http" } else { "https" };
        let text = format!(
            "{scheme}://{}/v2/{}/{kind}/{name}",
            self.reference.host(),
            self.reference.repository()
        );
        Url::parse(&text).map_err(|_| RegistryError::BadReference {
            text: self.reference.to_string(),
        })
    }

    pub(super) fn blob_refusal(&self, answer: &Response, digest: Digest) -> RegistryError {
        match answer.status().as_u16() {
            404 => RegistryError::BlobNotFound {
                registry: self.peer.registry.clone(),
                digest,
            },
            _ => self.refusal(answer, "a blob"),
        }
    }

    fn refusal(&self, answer: &Response, what: &'static str) -> RegistryError {
        let registry = self.peer.registry.clone();
        match answer.status().as_u16() {
            401 | 403 => RegistryError::Unauthorized {
                registry,
                repository: self.reference.repository().to_owned(),
                with_credentials: self.credentials.is_some(),
            },
            429 => {
                let seconds = answer
                    .headers()
                    .get(RETRY_AFTER)
                    .and_then(|value| value.to_str().ok()?.parse().ok());
                RegistryError::RateLimited {
                    registry,
                    retry_after: seconds.map_or(RATE_LIMIT_WAIT, Duration::from_secs),
                }
            }
            status => self.peer.status(status, what),
        }
    }

    fn verified(
        &self,
        what: &'static str,
        expected: Option<Digest>,
        actual: Digest,
    ) -> Result<(), RegistryError> {
        match expected {
            Some(expected) if expected != actual => Err(RegistryError::WrongDigest {
                registry: self.peer.registry.clone(),
                what,
                expected,
                actual,
            }),
            _ => Ok(()),
        }
    }

    /// Tries again what may pass.
    async fn retried<'a, T>(
        &'a self,
        attempt: impl Fn() -> BoxFuture<'a, Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        let mut tried = 1;
        loop {
            match attempt().await {
                Err(error) if tried < TRIES_MAX && error.is_transient() => {
                    back_off(&error, tried).await;
                }
                result => return result,
            }
            tried += 1;
        }
    }
}

/// Waits before the try after `tried` tries: longer each time, and as long as the registry asks, bounded.
pub(super) async fn back_off(error: &RegistryError, tried: u32) {
    let own = BACKOFF_FIRST * 2u32.saturating_pow(tried.saturating_sub(1).min(16));
    let asked = match error {
        RegistryError::RateLimited { retry_after, .. } => *retry_after,
        _ => Duration::ZERO,
    };
    tracing::debug!(tried, error = %banger_core::chain(error), "a request to a registry failed, trying again");
    tokio::time::sleep(own.max(asked).min(BACKOFF_MAX)).await;
}

impl Peer {
    /// Sends a request; the answer's head must come before the stall time-out.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, RegistryError> {
        self.in_time(request.send()).await
    }

    /// Waits for the next step of an exchange.
    pub(super) async fn in_time<T>(
        &self,
        step: impl Future<Output = Result<T, reqwest::Error>>,
    ) -> Result<T, RegistryError> {
        match tokio::time::timeout(self.stall, step).await {
            Ok(result) => result.map_err(|source| RegistryError::Unreachable {
                registry: self.registry.clone(),
                source,
            }),
            Err(_) => Err(RegistryError::Stalled {
                registry: self.registry.clone(),
                stall: self.stall,
            }),
        }
    }

    pub(super) fn status(&self, status: u16, what: &'static str) -> RegistryError {
        RegistryError::Status {
            registry: self.registry.clone(),
            status,
            what,
        }
    }
}

/// The whole body, which must not be longer than `limit`.
pub(super) async fn bounded(
    peer: &Peer,
    mut answer: Response,
    limit: u64,
    what: &'static str,
) -> Result<Bytes, RegistryError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = peer.in_time(answer.chunk()).await? {
        if (body.len() + chunk.len()) as u64 > limit {
            return Err(RegistryError::TooLarge {
                registry: peer.registry.clone(),
                what,
                limit,
            });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// A redirect must not leave TLS behind.
fn redirects(is_plain: bool) -> Policy {
    Policy::custom(move |attempt| {
        if attempt.previous().len() > REDIRECTS_MAX {
            attempt.error("too many redirects")
        } else if attempt.url().scheme() != "https" && !is_plain {
            attempt.error("a redirect from https to http")
        } else {
            attempt.follow()
        }
    })
}

/// One provider for the whole process; another crate may have installed it before.
fn install_tls_provider() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default(); // an error says one is there
    });
}
