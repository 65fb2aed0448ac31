//! Authentication as registries ask for it: basic, or a bearer token from a token server
//! (CNCF distribution, "Token Authentication Specification").

use http_auth::parser::ChallengeParser;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use reqwest::{Client, RequestBuilder, Url};
use serde::Deserialize;

use super::client::{Peer, bounded};
use super::options::Credentials;
use super::{ImageReference, RegistryError};
use crate::limits::ANSWER_BYTES_MAX;

/// How the registry knows us from its first challenge on.
#[derive(Clone)]
pub(super) enum Authorization {
    Basic(Credentials),
    Bearer(String),
}

impl Authorization {
    pub(super) fn apply(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Basic(credentials) => {
                request.basic_auth(&credentials.username, Some(&credentials.password))
            }
            Self::Bearer(token) => request.bearer_auth(token),
        }
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

/// A bearer challenge's parameters.
struct Bearer {
    realm: Url,
    service: Option<String>,
}

/// Meets the challenge in `headers`.
pub(super) async fn authorize(
    client: &Client,
    peer: &Peer,
    reference: &ImageReference,
    credentials: Option<&Credentials>,
    headers: &HeaderMap,
) -> Result<Authorization, RegistryError> {
    let refused = || RegistryError::Unauthorized {
        registry: peer.registry.clone(),
        repository: reference.repository().to_owned(),
        with_credentials: credentials.is_some(),
    };
    let Some(bearer) = bearer_challenge(headers) else {
        return credentials
            .cloned()
            .map(Authorization::Basic)
            .ok_or_else(refused);
    };
    // Credentials and tokens of a registry with TLS must not travel without it.
    if bearer.realm.scheme() != "https" && !peer.is_plain {
        return Err(RegistryError::BadChallenge {
            registry: peer.registry.clone(),
        });
    }
    let mut url = bearer.realm;
    if let Some(service) = bearer.service {
        url.query_pairs_mut().append_pair("service", &service);
    }
    url.query_pairs_mut().append_pair(
        "scope",
        &format!("repository:{}:pull", reference.repository()),
    );
    let mut request = client.get(url);
    if let Some(credentials) = credentials {
        request = request.basic_auth(&credentials.username, Some(&credentials.password));
    }
    let answer = peer.send(request).await?;
    match answer.status().as_u16() {
        200 => {}
        400..=403 => return Err(refused()),
        status => return Err(peer.status(status, "a token")),
    }
    let body = bounded(peer, answer, ANSWER_BYTES_MAX as u64, "a token").await?;
    let malformed = || RegistryError::Malformed {
        registry: peer.registry.clone(),
        what: "token",
    };
    let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| malformed())?;
    answer
        .token
        .or(answer.access_token)
        .map(Authorization::Bearer)
        .ok_or_else(malformed)
}

fn bearer_challenge(headers: &HeaderMap) -> Option<Bearer> {
    headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|header| header.to_str().ok())
        .find_map(|text| {
            ChallengeParser::new(text)
                .filter_map(Result::ok)
                .find_map(|challenge| {
                    if !challenge.scheme.eq_ignore_ascii_case("bearer") {
                        return None;
                    }
                    let param = |name: &str| {
                        challenge
                            .params
                            .iter()
                            .find(|(key, _)| key.eq_ignore_ascii_case(name))
                            .map(|(_, value)| value.to_unescaped())
                    };
                    Some(Bearer {
                        realm: Url::parse(&param("realm")?).ok()?,
                        service: param("service"),
                    })
                })
        })
}
