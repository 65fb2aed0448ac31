//! One place that serves a repository: the registry itself, or one of its mirrors.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use banger_registry_auth::{AuthFiles, Login, Place};
use bytes::{Bytes, BytesMut};
use reqwest::header::{HeaderMap, LOCATION};
use reqwest::{Client, RequestBuilder, Response, Url};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;

use super::auth::{Authorization, authorize};
use super::error::RegistryError;
use super::options::{PullOptions, RegistrySettings};
use super::{ImageReference, retry};
use crate::limits::TRIES_MAX;
use crate::transport::fence::{Closed, Fence, proxies};
use crate::transport::pace::Pace;
use crate::transport::tls::{self, TlsFileError, TlsProblem, Trust};
use crate::transport::{Peer, is_loopback, settings_of, without_port};

/// How a place is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Security {
    Tls,
    /// TLS without verification if it knows TLS, else without; found out once.
    Whatever,
    Plain,
}

/// Challenges met for one request: tokens are shared by the requests of a pull, and may be used up between two
/// of them.
const CHALLENGES_MAX: usize = 4;

/// Where the authorization of a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Renewal {
    /// From an earlier request.
    None,
    /// From another request that was refused at the same time.
    Anothers,
    /// From its own challenge.
    Own,
}

/// A place that serves a repository.
pub(super) struct Endpoint {
    pub(super) client: Client,
    /// Host and port, for errors.
    pub(super) name: String,
    /// The repository as this place calls it.
    pub(super) repository: String,
    /// Tries of one request.
    pub(super) tries: u32,
    /// Host and port that are connected to.
    host: String,
    security: Security,
    scheme: OnceCell<&'static str>,
    fence: Arc<Fence>,
    stall: Duration,
    given_login: Option<Login>,
    auth_files: AuthFiles,
    login: OnceCell<Option<Login>>,
    authorization: Mutex<Option<Authorization>>,
}

impl Endpoint {
    /// The registry of a reference.
    pub(super) fn registry(
        reference: &ImageReference,
        options: &PullOptions,
    ) -> Result<Self, RegistryError> {
        let mut endpoint = Self::new(reference.registry(), reference.host(), options)?;
        reference.repository().clone_into(&mut endpoint.repository);
        endpoint.given_login.clone_from(&options.login);
        endpoint.tries = TRIES_MAX;
        Ok(endpoint)
    }

    /// A mirror of it: `host[:port][/path]`. It is tried once; what is behind it is there for the rest.
    pub(super) fn mirror(
        mirror: &str,
        reference: &ImageReference,
        options: &PullOptions,
    ) -> Result<Self, RegistryError> {
        let (host, path) = mirror.split_once('/').unwrap_or((mirror, ""));
        let mut endpoint = Self::new(host, host, options)?;
        let path = path.trim_matches('/');
        endpoint.repository = match path {
            "" => reference.repository().to_owned(),
            path => format!("{path}/{}", reference.repository()),
        };
        Ok(endpoint)
    }

    fn new(name: &str, host: &str, options: &PullOptions) -> Result<Self, RegistryError> {
        let settings = settings_of(&options.registries, name);
        let security = match settings {
            Some(settings) if settings.insecure => Security::Whatever,
            None if is_loopback(name) => Security::Plain,
            _ => Security::Tls,
        };
        let known = options
            .registries
            .keys()
            .map(|name| name.to_ascii_lowercase())
            .chain(proxies(|variable| std::env::var(variable).ok()));
        let fence = Arc::new(Fence::new(
            without_port(host),
            security != Security::Tls,
            known.collect(),
        ));
        let none = RegistrySettings::default();
        let settings = settings.unwrap_or(&none);
        let peer = Peer {
            host,
            tls: &settings.tls,
            trust: match settings.insecure {
                true => Trust::Anybody,
                false => Trust::Verified,
            },
            connect_timeout: options.connect_timeout,
        };
        let builder = peer.client(&fence).map_err(unusable)?;
        Ok(Self {
            client: builder.build().map_err(RegistryError::Client)?,
            name: name.to_owned(),
            repository: String::new(),
            tries: 1,
            host: host.to_owned(),
            security,
            scheme: OnceCell::new(),
            fence,
            stall: options.stall_timeout,
            given_login: None,
            auth_files: options.auth_files.clone(),
            login: OnceCell::new(),
            authorization: Mutex::default(),
        })
    }

    /// Who we are here: what the request says, else what the files say.
    pub(super) async fn login(&self) -> Result<Option<Login>, RegistryError> {
        if self.given_login.is_some() {
            return Ok(self.given_login.clone());
        }
        let place = Place::new(&self.name, &self.repository);
        let find = || async { self.auth_files.login(&place).await };
        let found = self.login.get_or_try_init(find).await;
        let found = found.map_err(|source| RegistryError::Auth {
            registry: self.name.clone(),
            source,
        })?;
        Ok(found.clone())
    }

    /// Whether we may be led to `url`.
    pub(super) fn check(&self, url: &Url) -> Result<(), RegistryError> {
        self.fence.check(url).map_err(|closed| self.closed(&closed))
    }

    /// Sends a GET for a manifest or blob of the repository, meeting one challenge if there is one. A token
    /// that has run out is renewed by the same way.
    pub(super) async fn get(
        &self,
        kind: &str,
        name: &str,
        more: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let url = self
            .url(&format!("{}/{kind}/{name}", self.repository))
            .await?;
        let request = |authorization: &Option<Authorization>| {
            let request = more(self.client.get(url.clone()));
            match authorization {
                Some(authorization) => authorization.apply(request),
                None => request,
            }
        };
        let mut known = self.authorization.lock().await.clone();
        let mut renewed = Renewal::None;
        for _ in 0..CHALLENGES_MAX {
            let answer = self.send(request(&known)).await?;
            // A token that was made for this request and is refused tells that no token will do.
            if answer.status().as_u16() != 401 || renewed == Renewal::Own {
                return Ok(answer);
            }
            (known, renewed) = self.renew(known, answer.headers()).await?;
        }
        self.send(request(&known)).await
    }

    /// What is known after a challenge to `old`. Requests that were refused together share one renewal.
    async fn renew(
        &self,
        old: Option<Authorization>,
        headers: &HeaderMap,
    ) -> Result<(Option<Authorization>, Renewal), RegistryError> {
        let mut current = self.authorization.lock().await;
        if *current != old {
            return Ok((current.clone(), Renewal::Anothers));
        }
        *current = Some(authorize(self, headers).await?);
        Ok((current.clone(), Renewal::Own))
    }

    async fn url(&self, path: &str) -> Result<Url, RegistryError> {
        let scheme = match self.security {
            Security::Tls => "https",
            Security::Plain => "http",
            Security::Whatever => *self.scheme.get_or_try_init(|| self.find_scheme()).await?,
        };
        self.url_by(scheme, path)
    }

    fn url_by(&self, scheme: &str, path: &str) -> Result<Url, RegistryError> {
        let text = format!("{scheme}://{}/v2/{path}", self.host);
        Url::parse(&text).map_err(|_| RegistryError::BadReference {
            text: format!("{}/{}", self.host, self.repository),
        })
    }

    /// `https` where anything answers by TLS, whoever it is.
    async fn find_scheme(&self) -> Result<&'static str, RegistryError> {
        match self.send(self.client.get(self.url_by("https", "")?)).await {
            Err(
                RegistryError::Unreachable { .. }
                | RegistryError::NotTls { .. }
                | RegistryError::Stalled { .. },
            ) => Ok("http"),
            Ok(_) => Ok("https"),
            Err(error) => Err(error),
        }
    }

    /// Sends a request; the answer's head must come before the stall time-out.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, RegistryError> {
        self.in_time(request.send()).await
    }

    /// The next chunk of an answer, at a pace that is at least `pace`'s.
    pub(super) async fn chunk(
        &self,
        answer: &mut Response,
        pace: &mut Pace,
    ) -> Result<Option<Bytes>, RegistryError> {
        let begin = Instant::now();
        let chunk = self.in_time(answer.chunk()).await?;
        if let Some(chunk) = &chunk {
            pace.note(begin.elapsed(), chunk.len())
                .map_err(|(window, bytes)| RegistryError::TooSlow {
                    registry: self.name.clone(),
                    window,
                    bytes,
                })?;
        }
        Ok(chunk)
    }

    pub(super) fn pace(&self) -> Pace {
        Pace::new(self.stall)
    }

    /// The whole body, which must not be longer than `limit`.
    pub(super) async fn bounded(
        &self,
        mut answer: Response,
        limit: u64,
        what: &'static str,
    ) -> Result<Bytes, RegistryError> {
        let (mut body, mut pace) = (BytesMut::new(), self.pace());
        while let Some(chunk) = self.chunk(&mut answer, &mut pace).await? {
            if (body.len() + chunk.len()) as u64 > limit {
                return Err(RegistryError::TooLarge {
                    registry: self.name.clone(),
                    what,
                    limit,
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// Waits for the next step of an exchange.
    async fn in_time<T>(
        &self,
        step: impl Future<Output = Result<T, reqwest::Error>>,
    ) -> Result<T, RegistryError> {
        match tokio::time::timeout(self.stall, step).await {
            Ok(result) => result.map_err(|source| self.broken(source)),
            Err(_) => Err(RegistryError::Stalled {
                registry: self.name.clone(),
                stall: self.stall,
            }),
        }
    }

    /// What a failed exchange is.
    fn broken(&self, source: reqwest::Error) -> RegistryError {
        let registry = self.name.clone();
        let mut at: Option<&(dyn Error + 'static)> = Some(&source);
        while let Some(error) = at {
            if let Some(closed) = error.downcast_ref::<Closed>() {
                return self.closed(closed);
            }
            at = error.source();
        }
        match tls::problem(&source) {
            Some(TlsProblem::NotTls) => RegistryError::NotTls { registry },
            Some(TlsProblem::Certificate(problem)) => {
                RegistryError::Certificate { registry, problem }
            }
            Some(TlsProblem::ClientCertificate) => RegistryError::ClientCertificate { registry },
            None => RegistryError::Unreachable {
                registry,
                source: source.without_url(), // the URL of a redirect may hold a signature
            },
        }
    }

    fn closed(&self, closed: &Closed) -> RegistryError {
        RegistryError::LedAway {
            registry: self.name.clone(),
            problem: closed.to_string(),
        }
    }

    pub(super) fn unauthorized(&self, with_credentials: bool) -> RegistryError {
        RegistryError::Unauthorized {
            registry: self.name.clone(),
            repository: self.repository.clone(),
            with_credentials,
        }
    }

    /// What an answer that is no success means.
    pub(super) async fn refusal(&self, answer: &Response, what: &'static str) -> RegistryError {
        match answer.status().as_u16() {
            401 | 403 => {
                let login = self.login().await;
                self.unauthorized(matches!(login, Ok(Some(_))))
            }
            _ => self.status(answer, what),
        }
    }

    /// The same without a look at who we are.
    pub(super) fn status(&self, answer: &Response, what: &'static str) -> RegistryError {
        let registry = self.name.clone();
        let asked = retry::retry_after(answer.headers());
        // What the client itself cannot follow is left to us.
        if answer.status().is_redirection() {
            return self.closed(&Closed::Scheme {
                to: scheme_of(answer.headers()),
            });
        }
        match (answer.status().as_u16(), asked) {
            (status @ 429, retry_after) | (status @ 503, retry_after @ Some(_)) => {
                RegistryError::RateLimited {
                    registry,
                    status,
                    retry_after,
                }
            }
            (status, _) => RegistryError::Status {
                registry,
                status,
                what,
            },
        }
    }
}

fn unusable(file: TlsFileError) -> RegistryError {
    let TlsFileError { path, problem } = file;
    RegistryError::TlsFile { path, problem }
}

/// The scheme that a redirect leads to; all else of it may be a secret.
fn scheme_of(headers: &HeaderMap) -> String {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    location
        .and_then(|location| Url::parse(location).ok())
        .map_or_else(|| "nowhere".to_owned(), |url| format!("{}:", url.scheme()))
}
