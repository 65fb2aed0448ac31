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
    let owner = match request.owner.as_str() {
        "" => None,
        text => {
            let wrong = |_| RequestError::invalid("owner", "is nobody's name");
            Some(text.parse::<Owner>().map_err(wrong)?)
        }
    };
    let method = match request.method.as_str() {
        "" => None,
        method => Some(method.trim_start_matches('/').to_owned()),
    };
    Ok(Wanted {
        size: page::size(request.page_size)?,
        before,
        filter: AuditFilter {
            owner,
            since: request.since.as_ref().map(since).transpose()?,
            method,
            failed: request.failed,
        },
    })
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
    }
}
