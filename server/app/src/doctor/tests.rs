use std::collections::HashSet;

use banger_core::doctor::Verdict;

use super::host::laid_out;
use super::*;

fn own() -> impl Iterator<Item = &'static Check> {
    TABLE.into_iter().flat_map(|(_, checks)| checks)
}

#[test]
fn ids_are_unique_and_stable_words_and_every_check_has_a_deadline() {
    let mut seen = HashSet::new();
    for check in own() {
        assert!(seen.insert(check.id), "{} is there twice", check.id);
        let is_word = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        assert!(check.id.chars().all(is_word), "{}", check.id);
        assert!(check.deadline > Duration::ZERO && !check.title.ends_with('.'));
    }
    assert!(seen.len() >= 20 && seen.len() < REPORTS);
}

#[test]
fn subjects_are_shown_in_their_order() {
    let subjects: Vec<Subject> = TABLE.iter().map(|(subject, _)| *subject).collect();
    assert!(subjects.is_sorted(), "{subjects:?}");
}

#[tokio::test]
async fn a_check_that_never_ends_is_a_problem_that_says_so() {
    let late = limited(Duration::from_millis(1), std::future::pending()).await;
    assert_eq!(late.verdict, Verdict::Problem);
    assert_eq!(late.found, "the check did not end within its 1ms");
    assert!(!late.remedy.is_empty());
}

/// Whatever of a host is missing, a check says so: it does not break, and what is bad has a cause.
#[test]
fn no_check_of_files_breaks_on_an_empty_host() {
    let (_dir, host) = laid_out::host(&[]);
    for check in own() {
        if let Probe::Files(probe) = check.probe {
            let found = probe(&host);
            assert!(!found.found.is_empty(), "{}", check.id);
            assert_eq!(
                found.verdict.is_bad(),
                !found.cause.is_empty(),
                "{}: {found:?}",
                check.id
            );
        }
    }
}

#[test]
fn what_was_mended_is_fixed_only_if_it_is_well_then() {
    let bad = || Finding::warning("too few", "Not enough.");
    let mut course = Course::of(bad());
    course.mended("raised it".into(), Finding::ok("enough"));
    assert_eq!(
        (course.status, course.changed.as_str()),
        (Status::Fixed, "raised it")
    );
    let mut course = Course::of(bad());
    course.mended("raised it".into(), bad());
    assert_eq!(course.status, Status::Warning);
    let mut course = Course::of(bad());
    course.not_mended("permission denied");
    assert_eq!(course.status, Status::Warning);
    assert_eq!(
        course.finding.cause,
        "Not enough. It could not be mended: permission denied."
    );
}
