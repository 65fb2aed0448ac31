//! A registry with its mirrors, seen from one repository: asked in turn, retried, bounded, verified.

use std::sync::atomic::{AtomicUsize, Ordering};

use banger_core::Digest;
use banger_core::operation::Progress;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use reqwest::header::{ACCEPT, CONTENT_TYPE};

use super::endpoint::Endpoint;
use super::options::PullOptions;
use super::retry::{back_off, is_worth_it};
use super::{ImageReference, RegistryError};
use crate::document::{Descriptor, Document, MANIFEST_TYPES, parse_served};
use crate::limits::MANIFEST_BYTES_MAX;
use crate::transport::settings_of;

/// A registry, seen from one repository.
pub(crate) struct Registry {
    reference: ImageReference,
    /// The mirrors in their order, then the registry itself.
    pub(super) endpoints: Vec<Endpoint>,
    /// The one that served last; those before it have failed.
    pub(super) serving: AtomicUsize,
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
        let settings = settings_of(&options.registries, reference.registry());
        let mirrors = settings.map_or(&[][..], |settings| &settings.mirrors);
        let mut endpoints = Vec::with_capacity(mirrors.len() + 1);
        for mirror in mirrors {
            endpoints.push(Endpoint::mirror(mirror, reference, options)?);
        }
        endpoints.push(Endpoint::registry(reference, options)?);
        Ok(Self {
            reference: reference.clone(),
            endpoints,
            serving: AtomicUsize::new(0),
        })
    }

    /// Host and port, e.g. `docker.io`.
    pub(crate) fn name(&self) -> &str {
        self.reference.registry()
    }

    /// A manifest or index, the reference's own or the one that an index names, as it came and as it is understood.
    pub(crate) async fn manifest(
        &self,
        named: Option<&Descriptor>,
        progress: &dyn Progress,
    ) -> Result<(Bytes, Document), RegistryError> {
        let own = Expected {
            digest: self.reference.digest(),
            size: None,
        };
        let expected = named.map_or(own, Expected::from);
        let name = named.map_or_else(
            || self.reference.tag_or_digest(),
            |named| named.digest.to_string(),
        );
        let name = name.as_str();
        self.anywhere(progress, |endpoint| {
            self.try_manifest(endpoint, name, expected).boxed()
        })
        .await
    }

    async fn try_manifest(
        &self,
        endpoint: &Endpoint,
        name: &str,
        expected: Expected,
    ) -> Result<(Bytes, Document), RegistryError> {
        const WHAT: &str = "a manifest";
        let accepted = MANIFEST_TYPES.join(", ");
        let answer = endpoint
            .get("manifests", name, |request| {
                request.header(ACCEPT, &accepted)
            })
            .await?;
        match answer.status().as_u16() {
            200 => {}
            404 => {
                return Err(RegistryError::NotFound {
                    reference: self.reference.to_string(),
                });
            }
            _ => return Err(endpoint.refusal(&answer, WHAT).await),
        }
        let content_type = answer.headers().get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        let body = endpoint.bounded(answer, MANIFEST_BYTES_MAX, WHAT).await?;
        expected.check(&endpoint.name, WHAT, &body)?;
        let document = parse_served(&body, &content_type)?;
        Ok((body, document))
    }

    /// A small blob, whole.
    pub(crate) async fn small_blob(
        &self,
        digest: Digest,
        size: u64,
        what: &'static str,
        progress: &dyn Progress,
    ) -> Result<Bytes, RegistryError> {
        self.anywhere(progress, |endpoint| {
            try_small_blob(endpoint, digest, size, what).boxed()
        })
        .await
    }

    /// Asks one place after the other, from the one that served last, until one serves.
    async fn anywhere<'a, T>(
        &'a self,
        progress: &dyn Progress,
        attempt: impl Fn(&'a Endpoint) -> BoxFuture<'a, Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        let mut number = self.serving.load(Ordering::Relaxed);
        loop {
            let endpoint = &self.endpoints[number];
            match retried(endpoint, progress, &attempt).await {
                Ok(answer) => {
                    self.serving.fetch_max(number, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error) if number + 1 < self.endpoints.len() => {
                    tell_next(endpoint, &error);
                    number += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Says in the log that a mirror does not serve.
pub(super) fn tell_next(mirror: &Endpoint, error: &dyn std::error::Error) {
    tracing::info!(mirror = mirror.name, error = %banger_core::chain(error), "a mirror does not serve, asking the next");
}

/// Tries again what may pass.
async fn retried<'a, T>(
    endpoint: &'a Endpoint,
    progress: &dyn Progress,
    attempt: &impl Fn(&'a Endpoint) -> BoxFuture<'a, Result<T, RegistryError>>,
) -> Result<T, RegistryError> {
    let mut tried = 1;
    loop {
        match attempt(endpoint).await {
            Err(error) if tried < endpoint.tries && is_worth_it(&error) => {
                back_off(&error, tried, progress).await;
            }
            result => return result,
        }
        tried += 1;
    }
}

async fn try_small_blob(
    endpoint: &Endpoint,
    digest: Digest,
    size: u64,
    what: &'static str,
) -> Result<Bytes, RegistryError> {
    let answer = endpoint
        .get("blobs", &digest.to_string(), |request| request)
        .await?;
    let body = match answer.status().as_u16() {
        200 => endpoint.bounded(answer, size, what).await?,
        404 => {
            return Err(RegistryError::BlobNotFound {
                registry: endpoint.name.clone(),
                digest,
            });
        }
        _ => return Err(endpoint.refusal(&answer, what).await),
    };
    let expected = Expected {
        digest: Some(digest),
        size: Some(size),
    };
    expected.check(&endpoint.name, what, &body)?;
    Ok(body)
}

/// What is known of a document before it comes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) digest: Option<Digest>,
    pub(crate) size: Option<u64>,
}

impl From<&Descriptor> for Expected {
    fn from(descriptor: &Descriptor) -> Self {
        Self {
            digest: Some(descriptor.digest),
            size: Some(descriptor.size),
        }
    }
}

impl Expected {
    /// Whether what came of `registry` is that.
    pub(crate) fn check(
        self,
        registry: &str,
        what: &'static str,
        bytes: &[u8],
    ) -> Result<(), RegistryError> {
        let (digest, size) = (Digest::of(bytes), bytes.len() as u64);
        let registry = registry.to_owned();
        match (self.digest, self.size) {
            (Some(expected), _) if expected != digest => Err(RegistryError::WrongDigest {
                registry,
                what,
                expected,
                actual: digest,
            }),
            (_, Some(expected)) if expected != size => Err(RegistryError::WrongSize {
                registry,
                what,
                expected,
                actual: size,
                digest,
            }),
            _ => Ok(()),
        }
    }
}
