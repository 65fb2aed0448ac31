//! The audit log.

use banger_core::audit::{AuditFilter, AuditRecord};
use banger_core::{Owner, Timestamp};
use banger_proto::v1;

use super::field::{int, span, time};
use super::page;
use crate::grpc::request::RequestError;

/// Which records are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The most of them.
    pub(crate) size: u32,
    /// From before this one.
    pub(crate) before: Option<u64>,
    /// Which.
    pub(crate) filter: AuditFilter,
}

/// Checks a request.
pub(crate) fn wanted(request: v1::ListAuditRequest) -> Result<Wanted, RequestError> {
    let before = match request.page_token.as_str() {
        "" => None,
        token => Some(
            token
                .parse()
                .map_err(|_| RequestError::invalid("page_token", "is not the token of a page"))?,
        ),
    };
    Ok(Wanted {
        size: page::size(request.page_size)?,
        before,
        filter: AuditFilter {
            owner: owner(&request.owner)?,
            since: request.since.as_ref().map(since).transpose()?,
            method: method(&request.method),
            failed: request.failed,
        },
    })
}

/// Checks what is to be watched: after which record, and which.
pub(crate) fn watched(
    request: &v1::WatchAuditRequest,
) -> Result<(Option<u64>, AuditFilter), RequestError> {
    let negative = |_| RequestError::invalid("after", "is negative");
    let after = request.after.map(u64::try_from).transpose();
    let filter = AuditFilter {
        owner: owner(&request.owner)?,
        since: request.since.as_ref().map(since).transpose()?,
        method: method(&request.method),
        failed: request.failed,
    };
    Ok((after.map_err(negative)?, filter))
}

fn owner(text: &str) -> Result<Option<Owner>, RequestError> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |_| RequestError::invalid("owner", "is nobody's name");
    text.parse().map(Some).map_err(wrong)
}

fn method(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.trim_start_matches('/').to_owned())
}

fn since(time: &prost_types::Timestamp) -> Result<Timestamp, RequestError> {
    Timestamp::new(time.seconds, time.nanos)
        .map_err(|_| RequestError::invalid("since", "is out of range"))
}

pub(crate) fn record(record: &AuditRecord) -> v1::AuditRecord {
    v1::AuditRecord {
        sequence: int(record.sequence),
        time: Some(time(record.time)),
        duration: Some(span(record.duration)),
        owner: record.owner.to_string(),
        role: record.role.to_string(),
        via: record.via.clone(),
        method: record.method.clone(),
        object: record.object.clone(),
        request_id: record.request_id.clone(),
        code: record.code,
        reason: record.reason.clone(),
        lost_count: int(record.lost),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_field_is_named() {
        let refused = |request| wanted(request).unwrap_err().to_string();
        let request = v1::ListAuditRequest {
            page_token: "x".into(),
            ..Default::default()
        };
        assert_eq!(refused(request), "page_token is not the token of a page");
        let request = v1::ListAuditRequest {
            owner: "a b".into(),
            ..Default::default()
        };
        assert_eq!(refused(request), "owner is nobody's name");
        let request = v1::ListAuditRequest {
            since: Some(prost_types::Timestamp {
                seconds: i64::MAX,
                nanos: 0,
            }),
            ..Default::default()
        };
        assert_eq!(refused(request), "since is out of range");
        let request = v1::WatchAuditRequest {
            after: Some(-1),
            ..Default::default()
        };
        let refused = watched(&request).unwrap_err().to_string();
        assert_eq!(refused, "after is negative");
    }
}
