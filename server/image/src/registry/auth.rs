//! Authentication as registries ask for it: basic, or a bearer token from a token server
//! (CNCF distribution, "Token Authentication Specification" and "OAuth2 Token Authentication").

use banger_registry_auth::Login;
use http_auth::parser::ChallengeParser;
use reqwest::header::{CONTENT_TYPE, HeaderMap, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, Url};
use serde::Deserialize;

use super::RegistryError;
use super::endpoint::Endpoint;
use crate::limits::ANSWER_BYTES_MAX;

/// Who we say we are where a refresh token is changed.
const CLIENT_ID: &str = "banger";

/// How the registry knows us from its first challenge on.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Authorization {
    Basic { username: String, password: String },
    Bearer(String),
}

impl Authorization {
    pub(super) fn apply(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Basic { username, password } => request.basic_auth(username, Some(password)),
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
    scope: Option<String>,
}

/// Meets the challenge in `headers`.
pub(super) async fn authorize(
    endpoint: &Endpoint,
    headers: &HeaderMap,
) -> Result<Authorization, RegistryError> {
    let login = endpoint.login().await?;
    let Some(bearer) = bearer_challenge(headers) else {
        return match login {
            Some(Login::Password { username, password }) => {
                Ok(Authorization::Basic { username, password })
            }
            _ => Err(endpoint.unauthorized(login.is_some())),
        };
    };
    // Also keeps credentials and tokens of a registry with TLS from travelling without it.
    endpoint.check(&bearer.realm)?;
    let had_login = login.is_some();
    let request = token_request(endpoint, bearer, login);
    let answer = endpoint.send(request).await?;
    match answer.status().as_u16() {
        200 => {}
        400..=403 => return Err(endpoint.unauthorized(had_login)),
        _ => return Err(endpoint.status(&answer, "a token")),
    }
    let body = endpoint
        .bounded(answer, ANSWER_BYTES_MAX as u64, "a token")
        .await?;
    let malformed = || RegistryError::Malformed {
        registry: endpoint.name.clone(),
        what: "token",
    };
    let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| malformed())?;
    answer
        .token
        .or(answer.access_token)
        .filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()))
        .map(Authorization::Bearer)
        .ok_or_else(malformed)
}

/// Asks for what a pull needs, whatever the challenge names: a registry that could choose the scope could have
/// itself given a token for another repository.
fn token_request(endpoint: &Endpoint, bearer: Bearer, login: Option<Login>) -> RequestBuilder {
    let mut scopes = vec![format!("repository:{}:pull", endpoint.repository)];
    // Some token servers have one scope for all, which is a plain word.
    scopes.extend(bearer.scope.filter(|scope| !scope.contains([':', ' '])));
    let mut url = bearer.realm;
    if let Some(Login::IdentityToken(token)) = login {
        let mut form = Url::parse("form:").expect("a constant");
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", &bearer.service.unwrap_or_default())
            .append_pair("client_id", CLIENT_ID)
            .append_pair("scope", &scopes.join(" "))
            .append_pair("refresh_token", &token);
        return endpoint
            .client
            .post(url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.query().unwrap_or_default().to_owned());
    }
    if let Some(service) = bearer.service {
        url.query_pairs_mut().append_pair("service", &service);
    }
    for scope in &scopes {
        url.query_pairs_mut().append_pair("scope", scope);
    }
    let request = endpoint.client.get(url);
    match login {
        Some(Login::Password { username, password }) => {
            request.basic_auth(username, Some(password))
        }
        _ => request,
    }
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
                        scope: param("scope"),
                    })
                })
        })
}
