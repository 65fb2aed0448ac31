//! From an agent that answers to a guest that is set up: files, identity, names and network, and at last the image's
//! own init where there is one.

use banger_core::guest::{Guest, GuestConfig, GuestError, GuestIdentity};
use banger_core::image::Image;
use banger_core::setup::{
    CREDENTIALS_MAX, GIT_BYTES_MAX, InitMode, SSH_KEY_BYTES_MAX, SSH_KEYS_MAX, VmIdentity,
};
use banger_core::vm::{Vm, VmSpec};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::files;
use crate::Context;
use crate::credentials;
use crate::error::AppError;
use crate::volume::mount::guest_volumes;

/// The kinds of keys that sshd(8) knows and still takes.
const SSH_KEY_KINDS: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];
/// The word that makes the agent leave process 1 to the image's init: `image`, or a path.
const INIT: &str = "banger.init";
/// For systemd, since nobody can type at the console: no questions at a first boot (systemd-firstboot(1)), and no login
/// prompt (systemd-getty-generator(8)), for whose device it would wait 90 s in an image without udev.
const NOBODY_AT_THE_CONSOLE: [&str; 2] = ["systemd.firstboot=off", "systemd.getty_auto=no"];

/// Checks what a caller asks for.
pub(super) fn check(init: &InitMode, identity: &VmIdentity) -> Result<(), AppError> {
    if let InitMode::Image { path: Some(path) } = init
        && !files::is_plain_path(path)
    {
        return invalid(
            "spec.init_path",
            "is not an absolute path of a file without `..`".into(),
        );
    }
    check_git("spec.identity.git_name", &identity.git_name)?;
    check_git("spec.identity.git_email", &identity.git_email)?;
    check_count(
        "spec.identity.ssh_authorized_keys",
        identity.ssh_authorized_keys.len(),
        SSH_KEYS_MAX,
    )?;
    for (index, key) in identity.ssh_authorized_keys.iter().enumerate() {
        if let Err(problem) = check_key(key) {
            let problem = format!("has at {} {problem}", index + 1);
            return invalid("spec.identity.ssh_authorized_keys", problem);
        }
    }
    check_count(
        "spec.identity.credentials",
        identity.credentials.len(),
        CREDENTIALS_MAX,
    )
}

fn invalid<T>(field: &'static str, problem: String) -> Result<T, AppError> {
    Err(AppError::Invalid { field, problem })
}

fn check_count(field: &'static str, count: usize, max: usize) -> Result<(), AppError> {
    match count {
        count if count > max => invalid(field, format!("has {count} entries, and may have {max}")),
        _ => Ok(()),
    }
}

/// git takes `<`, `>` and line ends out of names by itself; a configuration file with them would be another one.
fn check_git(field: &'static str, text: &str) -> Result<(), AppError> {
    let is_wrong = |c: char| c.is_control() || matches!(c, '<' | '>');
    if text.len() > GIT_BYTES_MAX {
        return invalid(
            field,
            format!("has {} bytes, and may have {GIT_BYTES_MAX}", text.len()),
        );
    }
    match text.chars().any(is_wrong) {
        true => invalid(field, "has a control character, `<` or `>`".into()),
        false => Ok(()),
    }
}

/// `TYPE BASE64 [COMMENT]`, where the bytes begin with the type (RFC 4253 §6.6). No options: they would be rules of the
/// guest's sshd.
fn check_key(key: &str) -> Result<(), &'static str> {
    if key.len() > SSH_KEY_BYTES_MAX {
        return Err("a key that is too long");
    }
    if key.chars().any(char::is_control) {
        return Err("a key with a control character");
    }
    let mut words = key.split(' ');
    let kind = words.next().unwrap_or_default();
    if !SSH_KEY_KINDS.contains(&kind) {
        return Err("no public key of a known type: `TYPE BASE64 [COMMENT]`, without options");
    }
    let blob = STANDARD.decode(words.next().unwrap_or_default());
    let blob = blob.map_err(|_| "a key whose second word is not base64")?;
    let length = u32::try_from(kind.len()).unwrap_or(u32::MAX).to_be_bytes();
    let begins = blob
        .strip_prefix(&length)
        .and_then(|rest| rest.strip_prefix(kind.as_bytes()));
    match begins {
        Some(rest) if !rest.is_empty() => Ok(()),
        _ => Err("a key of another type than its first word says"),
    }
}

/// What a guest's kernel is told of its init.
pub(super) fn kernel_args(spec: &VmSpec) -> Vec<String> {
    match &spec.init {
        InitMode::Agent => Vec::new(),
        InitMode::Image { path } => {
            let init = path.as_deref().map_or_else(|| "image".to_owned(), encode);
            let quiet = NOBODY_AT_THE_CONSOLE.map(str::to_owned);
            [vec![format!("{INIT}={init}")], quiet.to_vec()].concat()
        }
    }
}

/// Percent-encodes what a kernel's command line would read as its own.
fn encode(path: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@".contains(&byte);
    path.bytes().fold(String::new(), |mut text, byte| {
        match is_plain(byte) {
            true => text.push(char::from(byte)),
            false => text.push_str(&format!("%{byte:02x}")),
        }
        text
    })
}

/// Who a guest's user is to be, its credentials read now; none where it is nobody.
///
/// # Errors
/// Those of [`credentials::read`].
pub(super) async fn identity(
    context: &Context,
    vm: &Vm,
    image: &Image,
) -> Result<Option<GuestIdentity>, AppError> {
    let wanted = &vm.spec.identity;
    if wanted.is_empty() {
        return Ok(None);
    }
    let profiles = &context.config.credentials;
    let files = credentials::read(profiles, &vm.owner, &wanted.credentials).await?;
    Ok(Some(GuestIdentity {
        user: image.config.user.clone(),
        git_name: wanted.git_name.clone(),
        git_email: wanted.git_email.clone(),
        ssh_authorized_keys: wanted.ssh_authorized_keys.clone(),
        files,
    }))
}

/// Gives the guest's user its identity.
pub(super) async fn set_identity(
    context: &Context,
    guest: &dyn Guest,
    identity: &GuestIdentity,
) -> Result<(), AppError> {
    within(context, "set_identity", guest.set_identity(identity)).await
}

/// Tells a guest who it is, and sets its clock.
pub(super) async fn configure(
    context: &Context,
    vm: &Vm,
    image: &Image,
    guest: &dyn Guest,
) -> Result<(), AppError> {
    let mut env: std::collections::BTreeMap<String, String> =
        image.config.env.iter().cloned().collect();
    env.extend(vm.spec.env.clone());
    let config = GuestConfig {
        hostname: vm.spec.name.to_string(),
        env,
        user: image.config.user.clone(),
        working_dir: image.config.working_dir.clone(),
        network: vm.spec.network.guest_network(),
        keep_pristine: super::is_build(vm),
        volumes: guest_volumes(&vm.spec.volumes),
    };
    within(context, "configure", guest.configure(&config)).await
}

/// Tells a guest that is set up the time, as far as it listens: it runs, and a clock that is late is no reason to say
/// that it does not.
pub(super) async fn set_clock(context: &Context, vm: &Vm, image: &Image, guest: &dyn Guest) {
    // The time comes with the configuration, of which the rest stays as it is.
    if let Err(error) = configure(context, vm, image, guest).await {
        tracing::warn!(vm = %vm.id, error = banger_core::chain(&error), "could not set a VM's clock");
    }
}

/// Starts the image's own init.
pub(super) async fn start_init(context: &Context, guest: &dyn Guest) -> Result<(), AppError> {
    within(context, "start_init", guest.start_init()).await
}

/// Completes the set-up of a guest that an earlier daemon did not get done with. What was done already stays.
pub(super) async fn complete(
    context: &Context,
    vm: &Vm,
    image: &Image,
    guest: &dyn Guest,
) -> Result<(), AppError> {
    configure(context, vm, image, guest).await?;
    if let Some(identity) = identity(context, vm, image).await? {
        set_identity(context, guest, &identity).await?;
    }
    match vm.spec.init.is_agent() {
        true => Ok(()),
        false => start_init(context, guest).await,
    }
}

pub(super) async fn within(
    context: &Context,
    during: &'static str,
    work: impl Future<Output = Result<(), GuestError>>,
) -> Result<(), AppError> {
    let limit = context.config.configure_timeout;
    let done = tokio::time::timeout(limit, work).await;
    done.unwrap_or(Err(GuestError::Deadline { during, limit }))
        .map_err(|source| AppError::Configure { source })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key of `ssh-keygen -t ed25519`.
    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPZ1bX0oZ4q1rC2H5vY7mQ3l8xkK0yWc9n6TtJ2sDgEh";

    #[test]
    fn keys_are_of_known_types_and_what_they_say() {
        for good in [KEY.to_owned(), format!("{KEY} ann@example.com of hers")] {
            assert_eq!(check_key(&good), Ok(()), "{good}");
        }
        let blob = KEY.split(' ').nth(1).unwrap();
        for bad in [
            String::new(),
            "ssh-ed25519".into(),
            "ssh-ed25519 not!base64".into(),
            format!("ssh-rsa {blob}"),
            format!("ssh-dss {blob}"),
            format!("command=\"sh\" {KEY}"),
            format!("{KEY}\n{KEY}"),
            format!("ssh-ed25519 {}", STANDARD.encode(b"\0\0\0\x0bssh-ed25519")),
            "-----BEGIN OPENSSH PRIVATE KEY-----".into(),
            format!("{KEY} {}", "x".repeat(SSH_KEY_BYTES_MAX)),
        ] {
            assert!(check_key(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_identity_is_bounded_and_its_wrong_fields_are_named() {
        let said = |identity: &VmIdentity| {
            check(&InitMode::Agent, identity)
                .err()
                .map_or_else(String::new, |error| error.to_string())
        };
        let good = VmIdentity {
            git_name: "Ann \"A\" Lee".into(),
            git_email: "ann@example.com".into(),
            ssh_authorized_keys: vec![KEY.into()],
            credentials: vec!["claude".parse().unwrap()],
        };
        assert_eq!(said(&good), "");
        let name = |git_name: &str| VmIdentity {
            git_name: git_name.into(),
            ..good.clone()
        };
        let problem = "has a control character, `<` or `>`";
        assert_eq!(
            said(&name("A\n[x]")),
            format!("spec.identity.git_name {problem}")
        );
        assert!(said(&name(&"x".repeat(257))).contains("257 bytes, and may have 256"));
        let keys = |count| VmIdentity {
            ssh_authorized_keys: vec![KEY.into(); count],
            ..good.clone()
        };
        assert_eq!(said(&keys(SSH_KEYS_MAX)), "");
        assert!(said(&keys(SSH_KEYS_MAX + 1)).contains("33 entries, and may have 32"));
        let wrong = VmIdentity {
            ssh_authorized_keys: vec![KEY.into(), "x".into()],
            ..good.clone()
        };
        assert!(
            said(&wrong).starts_with("spec.identity.ssh_authorized_keys has at 2 no public key")
        );
    }

    #[test]
    fn an_init_is_a_path_in_the_image() {
        let at = |path: &str| InitMode::Image {
            path: Some(path.into()),
        };
        let identity = VmIdentity::default();
        assert!(check(&at("/sbin/init"), &identity).is_ok());
        for bad in ["", "init", "/../init", "/"] {
            assert!(check(&at(bad), &identity).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_is_one_word_of_the_command_line() {
        assert_eq!(
            encode("/usr/lib/systemd/systemd"),
            "/usr/lib/systemd/systemd"
        );
        assert_eq!(encode("/a b\"c%=é"), "/a%20b%22c%25%3d%c3%a9");
    }
}
