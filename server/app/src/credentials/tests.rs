use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use banger_core::Explain as _;

use super::*;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn profile(source: &Path, allowed_uids: Option<Vec<u32>>) -> Profile {
    Profile {
        files: vec![ProfileFile {
            source: source.to_owned(),
            path: "~/.token".into(),
            mode: 0o600,
        }],
        allowed_uids,
        allowed_owners: None,
    }
}

fn secret(dir: &Path, mode: u32) -> PathBuf {
    let path = dir.join("token");
    fs::write(&path, "secret").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn a_profile_that_is_not_there_is_told_with_those_that_are_for_the_caller() {
    let none = Path::new("/nowhere");
    let profiles = Profiles::from([
        (name("all"), profile(none, None)),
        (name("mine"), profile(none, Some(vec![1000]))),
        (name("theirs"), profile(none, Some(vec![1001]))),
    ]);
    let me = Owner::of_uid(1000);
    assert_eq!(
        find(&profiles, &me, &[name("all"), name("mine")])
            .unwrap()
            .len(),
        2
    );
    for wrong in ["theirs", "other"] {
        let error = find(&profiles, &me, &[name("all"), name(wrong)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("there is no credential profile `{wrong}` for you; there are: all, mine")
        );
    }
    let error = find(&profiles, &Owner::daemon(), &[name("mine")]).unwrap_err();
    assert_eq!(error.metadata()[1], ("known", "all".to_owned()));
    let error = find(&Profiles::new(), &me, &[name("x")]).unwrap_err();
    assert!(error.to_string().ends_with("there are none"), "{error}");
}

#[test]
fn callers_of_other_hosts_have_what_names_them_alone() {
    let none = Path::new("/nowhere");
    let ci = Owner::of_certificate("ci").unwrap();
    let other = Owner::of_certificate("other").unwrap();
    let mut named = profile(none, None);
    named.allowed_owners = Some(vec![ci.clone()]);
    let mut both = profile(none, Some(vec![1000]));
    both.allowed_owners = Some(vec![ci.clone()]);
    let users = profile(none, Some(vec![1000]));
    let open = profile(none, None);
    let (ann, bob) = (Owner::of_uid(1000), Owner::of_uid(1001));
    let allowed =
        |profile: &Profile| [&ann, &bob, &ci, &other].map(|owner| u8::from(profile.allows(owner)));
    assert_eq!(allowed(&open), [1, 1, 0, 0]);
    assert_eq!(allowed(&users), [1, 0, 0, 0]);
    assert_eq!(allowed(&named), [0, 0, 1, 0]);
    assert_eq!(allowed(&both), [1, 0, 1, 0]);
}

#[tokio::test]
async fn contents_are_read_anew_each_time_and_shown_by_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let source = secret(dir.path(), 0o600);
    let profiles = Profiles::from([(name("p"), profile(&source, None))]);
    let (daemon, names) = (Owner::daemon(), [name("p")]);
    let read = || read(&profiles, &daemon, &names);
    assert_eq!(
        read().await.unwrap()[0].content.reveal().as_ref(),
        b"secret"
    );
    fs::write(&source, "other").unwrap();
    let files = read().await.unwrap();
    assert_eq!(files[0].content.reveal().as_ref(), b"other");
    assert!(!format!("{files:?}").contains("other"));
}

#[test]
fn sources_that_are_no_secrets_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for mode in [0o600, 0o400, 0o640] {
        read_one(&secret(dir.path(), mode), 6).unwrap();
    }
    for mode in [0o604, 0o620, 0o644, 0o602] {
        let fault = read_one(&secret(dir.path(), mode), 6).unwrap_err();
        assert!(matches!(fault, Fault::Unsafe(_)), "{mode:o}: {fault:?}");
    }
    let source = secret(dir.path(), 0o600);
    assert!(matches!(read_one(&source, 5), Err(Fault::TooLarge(5))));
    let link = dir.path().join("link");
    symlink(&source, &link).unwrap();
    assert!(matches!(read_one(&link, 6), Err(Fault::Read(_))));
    assert!(matches!(
        read_one(&dir.path().join("none"), 6),
        Err(Fault::Read(_))
    ));
    assert!(matches!(read_one(dir.path(), 6), Err(Fault::Unsafe(_))));
    let about = fs::metadata(&source).unwrap();
    assert!(check(&about, about.uid()).is_ok());
    if about.uid() != 0 {
        assert!(matches!(
            check(&about, about.uid() + 1),
            Err(Fault::Unsafe(_))
        ));
    }
}

#[test]
fn errors_name_the_profile_and_not_the_source() {
    let file = &profile(Path::new("/host/secret"), None).files[0];
    let error = Fault::Read(io::ErrorKind::NotFound.into()).of(&name("p"), file);
    assert_eq!(
        error.to_string(),
        "the source of `~/.token` in credential profile `p` cannot be read"
    );
    assert!(!format!("{:?}", error.metadata()).contains("/host"));
    assert_eq!(error.reason(), "CREDENTIALS_UNREADABLE");
}
