//! Arguments and environment up to what the kernel takes, and beyond.
use crate::support::{rig, shell, spec};
use banger_core::guest::GuestError;
use banger_core::session::{Exit, Resource, ResourceLimit, SessionSpec};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// `MAX_ARG_STRLEN` on a machine with pages of 4 KiB, its zero byte included.
const WORD_MAX: usize = 128 * KIB;

/// With a stack of this size, or without a limit.
fn with_stack(mut spec: SessionSpec, bytes: Option<u64>) -> SessionSpec {
    spec.limits = vec![ResourceLimit {
        resource: Resource::Stack,
        soft: bytes,
        hard: None,
    }];
    spec
}

/// Prints how many arguments it has, and how long they are together.
fn counting(words: Vec<String>) -> SessionSpec {
    let mut asked = shell("echo $#; IFS=; joined=\"$*\"; echo ${#joined}");
    asked.command.push("sh".into());
    asked.command.extend(words);
    asked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_may_be_as_long_as_the_kernel_takes() {
    let rig = rig().await;
    let whole = rig.run(counting(vec!["x".repeat(WORD_MAX - 1)])).await;
    assert_eq!(whole.text(), format!("1\n{}\n", WORD_MAX - 1));
    let error = rig.try_start(counting(vec!["x".repeat(WORD_MAX)])).await;
    let Err(error) = error else {
        panic!("a word that is too long was taken");
    };
    assert!(error.nothing_ran());
    let GuestError::ArgumentsTooLong { detail } = &error else {
        panic!("{error:?}");
    };
    assert!(
        detail.ends_with(&format!(
            "the longest has {WORD_MAX}, of which it takes {}",
            WORD_MAX - 1
        )),
        "{detail}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_words_together_may_be_a_quarter_of_the_stack() {
    let rig = rig().await;
    let words = |bytes: usize| vec!["y".repeat(100 * KIB); bytes / (100 * KIB)];
    let fits = with_stack(counting(words(1900 * KIB)), Some(8 << 20));
    assert_eq!(rig.run(fits).await.text(), format!("19\n{}\n", 1900 * KIB));
    let mut beyond = with_stack(spec(&["true"]), Some(8 << 20));
    beyond.command.extend(words(MIB));
    for index in 0..12 {
        beyond
            .env
            .insert(format!("V{index}"), "z".repeat(100 * KIB));
    }
    let Err(GuestError::ArgumentsTooLong { detail }) = rig.try_start(beyond.clone()).await else {
        panic!("more than a quarter of the stack was taken");
    };
    assert!(
        detail.contains("of which the kernel takes 2097152"),
        "{detail}"
    );
    // The environment of the session is what was too much: the same fits on a larger stack.
    let done = rig.run(with_stack(beyond, None)).await;
    assert_eq!(done.exit, Some(Exit::Code(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_mebibytes_of_words_reach_a_process_without_a_limit_of_its_stack() {
    let rig = rig().await;
    let large = with_stack(counting(vec!["x".repeat(100 * KIB); 59]), None);
    let whole = rig.run(large).await;
    assert_eq!(whole.text(), format!("59\n{}\n", 5900 * KIB));
    let many = with_stack(counting(vec![String::new(); 300_000]), None);
    assert_eq!(rig.run(many).await.text(), "300000\n0\n");
    let beyond = with_stack(counting(vec!["x".repeat(100 * KIB); 62]), None);
    let Err(GuestError::ArgumentsTooLong { detail }) = rig.try_start(beyond).await else {
        panic!("more than any kernel takes was taken");
    };
    assert!(
        detail.contains("of which the kernel takes 6291456"),
        "{detail}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_cuts_long_commands_and_a_session_alone_has_all_of_it() {
    let rig = rig().await;
    let large = with_stack(counting(vec!["x".repeat(100 * KIB); 50]), None);
    let mut ids = Vec::new();
    for _ in 0..4 {
        let id = banger_core::SessionId::new();
        rig.guest.start_session(id, &large).await.unwrap();
        ids.push(id);
    }
    for listed in rig.guest.list_sessions().await.unwrap() {
        assert!(listed.is_spec_shortened);
        let bytes: usize = listed.spec.command.iter().map(String::len).sum();
        assert!((1..=4 * KIB).contains(&bytes), "{bytes}");
    }
    let whole = rig.guest.get_session(ids[3]).await.unwrap();
    assert!(!whole.is_spec_shortened);
    assert_eq!(whole.spec.command, large.command);
    for id in ids {
        rig.guest.delete_session(id).await.unwrap();
    }
}
