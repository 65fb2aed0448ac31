//! What a guest is set up with, both ways.

use banger_app::vm::VmFile;
use banger_core::setup::{InitMode, VmIdentity};
use banger_proto::v1;
use banger_proto::v1::vm_spec::InitMode as Word;

use super::field;
use crate::grpc::request::RequestError;

/// Of a file for which no mode is given.
const DEFAULT_MODE: u16 = 0o644;

/// Who a caller wants to be process 1.
pub(super) fn init(word: i32, path: String) -> Result<InitMode, RequestError> {
    let mode = Word::try_from(word)
        .map_err(|_| RequestError::invalid("spec.init_mode", "is not an init mode"))?;
    match mode {
        Word::Image => Ok(InitMode::Image {
            path: Some(path).filter(|path| !path.is_empty()),
        }),
        Word::Unspecified | Word::Agent if path.is_empty() => Ok(InitMode::Agent),
        Word::Unspecified | Word::Agent => Err(RequestError::invalid(
            "spec.init_path",
            "is for the init mode IMAGE alone",
        )),
    }
}

pub(super) fn init_mode(init: &InitMode) -> Word {
    match init {
        InitMode::Agent => Word::Agent,
        InitMode::Image { .. } => Word::Image,
    }
}

pub(super) fn init_path(init: &InitMode) -> String {
    match init {
        InitMode::Image { path: Some(path) } => path.clone(),
        InitMode::Agent | InitMode::Image { path: None } => String::new(),
    }
}

/// Who a VM's user is; absent where it is nobody.
pub(super) fn identity(identity: &VmIdentity) -> Option<v1::VmIdentity> {
    (!identity.is_empty()).then(|| v1::VmIdentity {
        git_name: identity.git_name.clone(),
        git_email: identity.git_email.clone(),
        ssh_authorized_keys: identity.ssh_authorized_keys.clone(),
        credentials: identity
            .credentials
            .iter()
            .map(ToString::to_string)
            .collect(),
    })
}

/// Who a caller wants a VM's user to be. Bounds are the service's.
pub(super) fn wanted_identity(identity: v1::VmIdentity) -> Result<VmIdentity, RequestError> {
    let profile = |name: &String| {
        name.parse().map_err(|error| {
            RequestError::invalid(
                "spec.identity.credentials",
                format!("has what is no profile's name: {error}"),
            )
        })
    };
    Ok(VmIdentity {
        credentials: identity
            .credentials
            .iter()
            .map(profile)
            .collect::<Result<_, _>>()?,
        git_name: identity.git_name,
        git_email: identity.git_email,
        ssh_authorized_keys: identity.ssh_authorized_keys,
    })
}

/// What a caller wants to have written. Bounds are the service's.
pub(super) fn files(files: Vec<v1::VmFile>) -> Result<Vec<VmFile>, RequestError> {
    let file = |file: v1::VmFile| {
        let mode = match file.mode {
            0 => DEFAULT_MODE,
            mode => field::natural("files.mode", mode)?,
        };
        Ok(VmFile {
            path: file.path,
            content: file.content,
            mode,
            owner: file.owner,
        })
    };
    files.into_iter().map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_init_and_its_path_go_together() {
        for mode in [
            InitMode::Agent,
            InitMode::Image { path: None },
            InitMode::Image {
                path: Some("/sbin/init".into()),
            },
        ] {
            let back = init(init_mode(&mode).into(), init_path(&mode)).unwrap();
            assert_eq!(back, mode);
        }
        assert_eq!(init(0, String::new()), Ok(InitMode::Agent));
        assert!(init(0, "/init".into()).is_err());
        assert!(init(77, String::new()).is_err());
    }

    #[test]
    fn an_identity_goes_both_ways_and_names_profiles() {
        let wanted = v1::VmIdentity {
            git_name: "Ann".into(),
            credentials: vec!["claude".into()],
            ..Default::default()
        };
        let there = wanted_identity(wanted.clone()).unwrap();
        assert_eq!(identity(&there), Some(wanted));
        assert_eq!(identity(&VmIdentity::default()), None);
        let wrong = v1::VmIdentity {
            credentials: vec!["../x".into()],
            ..Default::default()
        };
        assert!(wanted_identity(wrong).is_err());
    }

    #[test]
    fn a_file_without_a_mode_may_be_read_by_everybody() {
        let file = |mode| v1::VmFile {
            path: "/a".into(),
            mode,
            ..Default::default()
        };
        let modes: Vec<u16> = files(vec![file(0), file(0o4755)])
            .unwrap()
            .iter()
            .map(|file| file.mode)
            .collect();
        assert_eq!(modes, [0o644, 0o4755]);
        assert!(files(vec![file(-1)]).is_err());
    }
}
