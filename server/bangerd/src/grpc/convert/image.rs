//! Images, what to pull and what to register.

use std::collections::{BTreeMap, BTreeSet};

use banger_app::build::CacheUsage;
use banger_app::image::{
    ArchiveFormat, ImageSource, Login, Logins, PruneRequest, Pruned, PullRequest, RegisterRequest,
    Removed, TotalUsage, Usage,
};
use banger_app::upload::Uploaded;
use banger_core::image::{Image, ImageConfig, Layer, Platform, TakeOver};
use banger_core::{Name, Owner, SignedDuration, size};
use banger_proto::v1;

use super::field::{self, int, time};
use crate::grpc::request::RequestError;

/// The most bytes of a registry's user name, and of its password or token.
const CREDENTIAL_MAX: usize = 16 << 10;
/// The most logins of one build: a Dockerfile names a few registries.
const LOGINS_MAX: usize = 64;
/// The most bytes of what a login is for: as long as a reference may be.
const PLACE_MAX: usize = 512;

pub(crate) fn image(image: &Image) -> v1::Image {
    v1::Image {
        id: image.id.to_string(),
        references: image.references.clone(),
        digest: image.digest.to_string(),
        platform: image.platform.to_string(),
        config: Some(config(&image.config)),
        layers: image.layers.iter().map(layer).collect(),
        rootfs_size_bytes: int(image.rootfs_size_bytes),
        rootfs_allocated_bytes: int(image.rootfs_allocated_bytes),
        create_time: Some(time(image.create_time)),
        origin: image.origin.clone(),
        kernel: image
            .kernel
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
    }
}

fn layer(layer: &Layer) -> v1::ImageLayer {
    v1::ImageLayer {
        digest: layer.digest.to_string(),
        size_bytes: int(layer.size_bytes),
    }
}

fn config(config: &ImageConfig) -> v1::ImageConfig {
    v1::ImageConfig {
        env: config
            .env
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect(),
        user: config.user.clone(),
        working_dir: config.working_dir.clone(),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        exposed_ports: config.exposed_ports.iter().cloned().collect(),
        labels: config.labels.clone(),
        stop_signal: config.stop_signal.clone(),
    }
}

/// What a removal did.
pub(crate) fn removed(removed: Removed) -> v1::DeleteImageResponse {
    v1::DeleteImageResponse {
        removed_references: removed.references,
        image_removed: removed.image,
        freed_bytes: int(removed.freed_bytes),
        deferred: removed.is_deferred,
    }
}

/// Which image gets which reference.
#[derive(Debug)]
pub(crate) struct Tag {
    pub(crate) image: String,
    pub(crate) reference: String,
    pub(crate) take_over: TakeOver,
}

pub(crate) fn tag(request: v1::TagImageRequest) -> Result<Tag, RequestError> {
    field::named("image", &request.image)?;
    field::named("reference", &request.reference)?;
    Ok(Tag {
        image: request.image,
        reference: request.reference,
        take_over: match request.replace {
            true => TakeOver::Allowed,
            false => TakeOver::Refused,
        },
    })
}

pub(crate) fn prune(request: &v1::PruneImagesRequest) -> Result<PruneRequest, RequestError> {
    let seconds: u64 = field::natural("older_than_seconds", request.older_than_seconds)?;
    Ok(PruneRequest {
        all: request.all,
        older_than: SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)),
        dry_run: request.dry_run,
    })
}

pub(crate) fn pruned(pruned: &Pruned, steps: CacheUsage) -> v1::PruneImagesResponse {
    v1::PruneImagesResponse {
        images: pruned.images.iter().map(image).collect(),
        removed_files: int(pruned.files),
        removed_build_steps: int(steps.steps),
        freed_bytes: int(pruned.freed_bytes + steps.bytes),
        deferred: pruned.is_deferred,
    }
}

pub(crate) fn usages(
    usages: &[Usage],
    total: &TotalUsage,
    next_page_token: String,
) -> v1::ListImageUsageResponse {
    v1::ListImageUsageResponse {
        images: usages.iter().map(usage).collect(),
        next_page_token,
        total_rootfs_bytes: int(total.rootfs_bytes),
        total_blob_bytes: int(total.blob_bytes),
        unreferenced_bytes: int(total.unreferenced_bytes),
        build_cache_bytes: 0,
    }
}

fn usage(usage: &Usage) -> v1::ImageUsage {
    v1::ImageUsage {
        image: usage.image.id.to_string(),
        references: usage.image.references.clone(),
        rootfs_bytes: int(usage.rootfs_bytes),
        blob_bytes: int(usage.blob_bytes),
        shared_bytes: int(usage.shared_bytes),
        reclaimable_bytes: int(usage.reclaimable_bytes),
        shared_with: usage.shared_with.iter().map(ToString::to_string).collect(),
        vms: usage.vms.iter().map(ToString::to_string).collect(),
    }
}

/// What a caller wants to have pulled.
pub(crate) fn pull(
    request: v1::PullImageRequest,
    owner: Owner,
    take_over: TakeOver,
) -> Result<PullRequest, RequestError> {
    field::named("reference", &request.reference)?;
    let source = match v1::pull_image_request::Source::try_from(request.source) {
        Ok(v1::pull_image_request::Source::Unspecified) => ImageSource::Any,
        Ok(v1::pull_image_request::Source::Catalog) => ImageSource::Catalog,
        Ok(v1::pull_image_request::Source::Registry) => ImageSource::Registry,
        Err(_) => return Err(RequestError::invalid("source", "is not a source")),
    };
    Ok(PullRequest {
        owner,
        kernel: request.kernel,
        replace: request.replace,
        take_over,
        source,
        platform: platform("platform", &request.platform)?,
        auth: request.auth.map(auth).transpose()?,
        reference: request.reference,
    })
}

/// The logins of a build, by what they are for.
pub(crate) fn logins(auths: BTreeMap<String, v1::BasicAuth>) -> Result<Logins, RequestError> {
    const FIELD: &str = "start.auths";
    if auths.len() > LOGINS_MAX {
        let problem = format!("has more than {LOGINS_MAX} entries");
        return Err(RequestError::invalid(FIELD, problem));
    }
    let login = |(place, given): (String, v1::BasicAuth)| {
        if place.is_empty() || place.len() > PLACE_MAX {
            let problem = format!("has an empty key, or one of more than {PLACE_MAX} bytes");
            return Err(RequestError::invalid(FIELD, problem));
        }
        let login = auth(given).map_err(|error| {
            let wrong = format!("has a wrong entry for {place:?}: {error}");
            RequestError::invalid(FIELD, wrong)
        });
        Ok((place, login?))
    };
    auths.into_iter().map(login).collect()
}

fn auth(auth: v1::BasicAuth) -> Result<Login, RequestError> {
    // The values are not repeated in the message: they are secrets.
    for (name, value) in [
        ("auth.username", &auth.username),
        ("auth.password", &auth.password),
        ("auth.identity_token", &auth.identity_token),
    ] {
        if value.len() > CREDENTIAL_MAX || value.contains(['\r', '\n', '\0']) {
            return Err(RequestError::invalid(
                name,
                format!("has more than {CREDENTIAL_MAX} bytes, or a line end"),
            ));
        }
    }
    if !auth.identity_token.is_empty() {
        if !auth.username.is_empty() || !auth.password.is_empty() {
            return Err(RequestError::invalid(
                "auth.identity_token",
                "comes with a user or a password",
            ));
        }
        return Ok(Login::IdentityToken(auth.identity_token));
    }
    // RFC 7617 section 2: the user-id and password are joined by the first colon.
    if auth.username.contains(':') {
        return Err(RequestError::invalid("auth.username", "has a colon"));
    }
    Ok(Login::Password {
        username: auth.username,
        password: auth.password,
    })
}

fn platform(field: &'static str, text: &str) -> Result<Option<Platform>, RequestError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|error| RequestError::invalid(field, format!("is wrong: {error}")))
}

/// What a caller wants to have registered; the archive is not here yet.
#[derive(Debug)]
pub(crate) struct RegisterStart {
    reference: String,
    format: ArchiveFormat,
    config: Option<ImageConfig>,
    platform: Option<Platform>,
    image: Option<String>,
    kernel: Option<Name>,
    take_over: TakeOver,
}

impl RegisterStart {
    /// The request, with its archive.
    pub(crate) fn with(self, archive: Uploaded) -> RegisterRequest {
        RegisterRequest {
            reference: self.reference,
            format: self.format,
            config: self.config,
            platform: self.platform,
            image: self.image,
            kernel: self.kernel,
            take_over: self.take_over,
            archive,
        }
    }
}

pub(crate) fn register(start: v1::RegisterImageStart) -> Result<RegisterStart, RequestError> {
    use v1::register_image_start::Format;
    field::named("start.reference", &start.reference)?;
    let format = match Format::try_from(start.format) {
        Ok(Format::Unspecified) => ArchiveFormat::Detect,
        Ok(Format::OciLayout) => ArchiveFormat::OciLayout,
        Ok(Format::DockerArchive) => ArchiveFormat::DockerArchive,
        Ok(Format::RootfsTar) => ArchiveFormat::RootfsTar,
        Ok(Format::Bundle) => ArchiveFormat::Bundle,
        Ok(Format::Ext4) => ArchiveFormat::Ext4,
        Err(_) => return Err(RequestError::invalid("start.format", "is not a format")),
    };
    let kernel = match start.kernel.as_str() {
        "" => None,
        named => Some(named.parse().map_err(|error| {
            RequestError::invalid("start.kernel", format!("is not a name: {error}"))
        })?),
    };
    let image = (!start.image.is_empty()).then_some(start.image);
    let has_names = matches!(
        format,
        ArchiveFormat::Detect | ArchiveFormat::OciLayout | ArchiveFormat::DockerArchive
    );
    if image.is_some() && !has_names {
        let problem = "is given, and an archive of this format holds one image";
        return Err(RequestError::invalid("start.image", problem));
    }
    Ok(RegisterStart {
        take_over: match start.replace {
            true => TakeOver::Allowed,
            false => TakeOver::Refused,
        },
        kernel,
        image,
        format,
        config: start.config.map(parse_config).transpose()?,
        platform: platform("start.platform", &start.platform)?,
        reference: start.reference,
    })
}

fn parse_config(config: v1::ImageConfig) -> Result<ImageConfig, RequestError> {
    let invalid = |problem: &str| RequestError::invalid("start.config", problem);
    let words = || {
        config
            .env
            .iter()
            .chain(&config.entrypoint)
            .chain(&config.cmd)
            .chain(&config.exposed_ports)
    };
    if words().count() > size::COMMAND_ITEMS_MAX
        || words().map(String::len).sum::<usize>() > size::COMMAND_BYTES_MAX
    {
        return Err(invalid(
            "is larger than a command and its environment may be",
        ));
    }
    if words().any(|word| word.contains('\0')) {
        return Err(invalid("has a zero byte"));
    }
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(RequestError::invalid(
            "start.config.working_dir",
            "is not an absolute path",
        ));
    }
    let pair = |entry: &String| match entry.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(RequestError::invalid(
            "start.config.env",
            "has an entry that is not KEY=value",
        )),
    };
    Ok(ImageConfig {
        env: config.env.iter().map(pair).collect::<Result<_, _>>()?,
        user: config.user,
        working_dir: config.working_dir,
        entrypoint: config.entrypoint,
        cmd: config.cmd,
        exposed_ports: BTreeSet::from_iter(config.exposed_ports),
        labels: config.labels,
        stop_signal: config.stop_signal,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T>(result: Result<T, RequestError>) -> String {
        result
            .err()
            .map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn each_wrong_field_of_a_pull_is_named() {
        let request = |reference: &str, platform: &str| v1::PullImageRequest {
            reference: reference.into(),
            platform: platform.into(),
            ..Default::default()
        };
        assert_eq!(
            refused(pull(request("", ""), Owner::daemon(), TakeOver::Refused)),
            "reference is missing"
        );
        assert!(
            refused(pull(
                request("debian", "linux"),
                Owner::daemon(),
                TakeOver::Refused
            ))
            .starts_with("platform is wrong: `linux` is not a platform")
        );
        let auth = v1::BasicAuth {
            username: "a:b".into(),
            password: "secret".into(),
            ..Default::default()
        };
        let refused = self::refused(pull(
            v1::PullImageRequest {
                auth: Some(auth),
                ..request("debian", "")
            },
            Owner::daemon(),
            TakeOver::Refused,
        ));
        assert_eq!(refused, "auth.username has a colon");
        let both = v1::BasicAuth {
            username: "a".into(),
            identity_token: "secret".into(),
            ..Default::default()
        };
        let refused = self::refused(pull(
            v1::PullImageRequest {
                auth: Some(both),
                ..request("debian", "")
            },
            Owner::daemon(),
            TakeOver::Refused,
        ));
        assert_eq!(
            refused,
            "auth.identity_token comes with a user or a password"
        );
    }

    #[test]
    fn each_wrong_field_of_a_registration_is_named() {
        let start = || v1::RegisterImageStart {
            reference: "a".into(),
            ..Default::default()
        };
        let config = |config| v1::RegisterImageStart {
            config: Some(config),
            ..start()
        };
        assert!(register(start()).is_ok());
        assert_eq!(
            refused(register(v1::RegisterImageStart {
                format: 9,
                ..start()
            })),
            "start.format is not a format"
        );
        let relative = v1::ImageConfig {
            working_dir: "x".into(),
            ..Default::default()
        };
        assert_eq!(
            refused(register(config(relative))),
            "start.config.working_dir is not an absolute path"
        );
        let pairless = v1::ImageConfig {
            env: vec!["A".into()],
            ..Default::default()
        };
        assert_eq!(
            refused(register(config(pairless))),
            "start.config.env has an entry that is not KEY=value"
        );
        let zero = v1::ImageConfig {
            cmd: vec!["\0".into()],
            ..Default::default()
        };
        assert_eq!(
            refused(register(config(zero))),
            "start.config has a zero byte"
        );
    }
}
