//! Volumes.

use banger_app::volume::{MountRequest, VolumeRequest, VolumeView};
use banger_core::Owner;
use banger_core::volume::{VolumeChange, VolumeMount};
use banger_proto::v1;

use super::change::generation;
use super::field::{self, int, time};
use crate::grpc::request::RequestError;

pub(crate) fn volume(view: &VolumeView) -> v1::Volume {
    let volume = &view.volume;
    let user = |(user, is_attached): &(banger_core::volume::VolumeUser, bool)| v1::VolumeUser {
        vm_id: user.vm.to_string(),
        vm: user.name.to_string(),
        read_only: user.read_only,
        is_attached: *is_attached,
    };
    v1::Volume {
        id: volume.id.to_string(),
        name: volume.name.to_string(),
        labels: volume.labels.clone(),
        size_mib: int(volume.size_mib),
        allocated_bytes: int(view.allocated_bytes.unwrap_or(0)),
        seed: volume
            .seed
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        users: view.users.iter().map(user).collect(),
        owner: volume.owner.to_string(),
        etag: volume.generation.to_string(),
        create_time: Some(time(volume.create_time)),
    }
}

/// What a caller wants to have made. Ranges and defaults are the service's.
pub(crate) fn create(
    request: v1::CreateVolumeRequest,
    owner: Owner,
) -> Result<VolumeRequest, RequestError> {
    field::named("name", &request.name)?;
    if !request.seed.is_empty() {
        field::named("seed", &request.seed)?;
    }
    Ok(VolumeRequest {
        name: request.name,
        labels: request.labels,
        size_mib: field::natural("size_mib", request.size_mib)?,
        seed: request.seed,
        owner,
    })
}

/// What a caller wants to have changed: exactly what the mask names.
pub(crate) fn change(request: v1::UpdateVolumeRequest) -> Result<VolumeChange, RequestError> {
    let mask = request.update_mask.unwrap_or_default();
    if mask.paths.is_empty() {
        return Err(RequestError::invalid(
            "update_mask",
            "names no field: it says what is to be changed",
        ));
    }
    let mut change = VolumeChange {
        generation: generation(&request.etag)?,
        ..VolumeChange::default()
    };
    for path in &mask.paths {
        match path.as_str() {
            "labels" => change.labels = Some(request.labels.clone()),
            "size_mib" => {
                change.size_mib = Some(field::natural("size_mib", request.size_mib)?);
            }
            other => {
                let shown: String = other.chars().take(64).collect();
                let problem =
                    format!("names `{shown}`, which cannot be changed: labels and size_mib can");
                return Err(RequestError::invalid("update_mask", problem));
            }
        }
    }
    Ok(change)
}

/// The volumes of a VM that is to be made.
pub(super) fn mounts(mounts: Vec<v1::VolumeMount>) -> Result<Vec<MountRequest>, RequestError> {
    let mount = |mount: v1::VolumeMount| {
        field::named("spec.volumes.volume", &mount.volume)?;
        Ok(MountRequest {
            volume: mount.volume,
            path: mount.path,
            read_only: mount.read_only,
        })
    };
    mounts.into_iter().map(mount).collect()
}

/// A volume of a VM, by its name.
pub(super) fn mount(mount: &VolumeMount) -> v1::VolumeMount {
    v1::VolumeMount {
        volume: mount.name.to_string(),
        path: mount.path.clone(),
        read_only: mount.read_only,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(paths: &[&str]) -> v1::UpdateVolumeRequest {
        v1::UpdateVolumeRequest {
            size_mib: 7,
            update_mask: Some(prost_types::FieldMask {
                paths: paths.iter().map(|&path| path.to_owned()).collect(),
            }),
            ..v1::UpdateVolumeRequest::default()
        }
    }

    #[test]
    fn only_what_the_mask_names_changes() {
        let changed = change(request(&["size_mib"])).unwrap();
        assert_eq!((changed.size_mib, changed.labels), (Some(7), None));
        let changed = change(request(&["labels"])).unwrap();
        assert_eq!(
            (changed.size_mib, changed.labels.map(|labels| labels.len())),
            (None, Some(0))
        );
        for paths in [&["name"][..], &[]] {
            let refused = change(request(paths)).unwrap_err().to_string();
            assert!(refused.starts_with("update_mask names"), "{refused}");
        }
    }

    #[test]
    fn a_wrong_field_of_a_creation_is_named() {
        let refused = |request| create(request, Owner::daemon()).unwrap_err().to_string();
        let without_name = v1::CreateVolumeRequest::default();
        assert_eq!(refused(without_name), "name is missing");
        let negative = v1::CreateVolumeRequest {
            name: "data".into(),
            size_mib: -1,
            ..v1::CreateVolumeRequest::default()
        };
        assert_eq!(refused(negative), "size_mib is -1, which is out of range");
    }
}
