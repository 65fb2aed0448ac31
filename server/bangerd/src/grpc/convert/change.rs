//! Changes of a VM.

use banger_core::vm::VmChange;
use banger_proto::v1;

use super::field;
use super::vm::{life, restart_policy};
use crate::grpc::request::RequestError;

/// What a caller wants to have changed: exactly what the mask names.
pub(crate) fn change(request: v1::UpdateVmRequest) -> Result<VmChange, RequestError> {
    let spec = request.spec.unwrap_or_default();
    let mask = request.update_mask.unwrap_or_default();
    if mask.paths.is_empty() {
        return Err(RequestError::invalid(
            "update_mask",
            "names no field: it says what is to be changed",
        ));
    }
    let mut change = VmChange {
        generation: generation(&request.etag)?,
        ..VmChange::default()
    };
    for path in &mask.paths {
        match path.as_str() {
            "labels" => change.labels = Some(spec.labels.clone()),
            "ttl" => change.ttl = Some(life("spec.ttl", spec.ttl.as_ref())?),
            "idle_timeout" => {
                change.idle_timeout = Some(life("spec.idle_timeout", spec.idle_timeout.as_ref())?);
            }
            "restart_policy" => change.restart_policy = Some(restart_policy(spec.restart_policy)?),
            "vcpu_count" => {
                change.vcpu_count = Some(field::natural("spec.vcpu_count", spec.vcpu_count)?);
            }
            "memory_mib" => {
                change.memory_mib = Some(field::natural("spec.memory_mib", spec.memory_mib)?);
            }
            "disk_mib" => change.disk_mib = Some(field::natural("spec.disk_mib", spec.disk_mib)?),
            other => {
                let shown: String = other.chars().take(64).collect();
                return Err(RequestError::invalid(
                    "update_mask",
                    format!(
                        "names `{shown}`, which cannot be changed: labels, ttl, idle_timeout, restart_policy, \
                         vcpu_count, memory_mib and disk_mib can"
                    ),
                ));
            }
        }
    }
    Ok(change)
}

pub(super) fn generation(etag: &str) -> Result<Option<u64>, RequestError> {
    if etag.is_empty() {
        return Ok(None);
    }
    let parsed = etag.parse();
    parsed
        .map(Some)
        .map_err(|_| RequestError::invalid("etag", "is none that this daemon gave"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn request(paths: &[&str]) -> v1::UpdateVmRequest {
        v1::UpdateVmRequest {
            spec: Some(v1::VmSpec {
                labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
                vcpu_count: 2,
                ..v1::VmSpec::default()
            }),
            update_mask: Some(prost_types::FieldMask {
                paths: paths.iter().map(|&path| path.to_owned()).collect(),
            }),
            ..v1::UpdateVmRequest::default()
        }
    }

    #[test]
    fn only_what_the_mask_names_changes() {
        let changed = change(request(&["vcpu_count"])).unwrap();
        let expected = VmChange {
            vcpu_count: Some(2),
            ..VmChange::default()
        };
        assert_eq!(changed, expected);
    }

    #[test]
    fn a_named_field_that_is_absent_is_taken_away() {
        let changed = change(request(&["ttl", "labels"])).unwrap();
        assert_eq!(changed.ttl, Some(None));
        assert_eq!(changed.labels.unwrap().len(), 1);
    }

    #[test]
    fn what_cannot_be_changed_is_refused_by_name() {
        let refused = |paths: &[&str]| change(request(paths)).unwrap_err().to_string();
        assert!(refused(&["image"]).starts_with("update_mask names `image`"));
        assert!(refused(&["*"]).starts_with("update_mask names `*`"));
        assert_eq!(
            refused(&[]),
            "update_mask names no field: it says what is to be changed"
        );
        let wrong = v1::UpdateVmRequest {
            etag: "x".into(),
            ..request(&["labels"])
        };
        let refused = change(wrong).unwrap_err().to_string();
        assert_eq!(refused, "etag is none that this daemon gave");
    }
}
