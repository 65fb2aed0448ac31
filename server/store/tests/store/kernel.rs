use banger_core::{Explain as _, KernelId};
use banger_store::{DeleteOutcome, Page, ReplaceOutcome};

use crate::support::{Scratch, image, kernel, name, vm};

#[tokio::test]
async fn the_first_kernel_becomes_the_default_and_the_next_does_not() {
    let scratch = Scratch::new().await;
    assert_eq!(scratch.store.default_kernel().await.unwrap(), None);
    let first = scratch
        .store
        .insert_kernel(&kernel("a"), false)
        .await
        .unwrap();
    let mut expected = kernel("a");
    expected.id = first.id;
    expected.is_default = true;
    assert_eq!(first, expected);
    let second = scratch
        .store
        .insert_kernel(&kernel("b"), false)
        .await
        .unwrap();
    assert!(!second.is_default);
    let default = scratch.store.default_kernel().await.unwrap();
    assert_eq!(default, Some(first.clone()));
    let third = scratch
        .store
        .insert_kernel(&kernel("c"), true)
        .await
        .unwrap();
    assert!(third.is_default);
    let first = scratch.store.get_kernel(first.id).await.unwrap().unwrap();
    assert!(!first.is_default);
    let found = scratch.store.find_kernel(&name("c")).await.unwrap();
    assert_eq!(found, Some(third.clone()));
    let listed = scratch.store.list_kernels(Page::first(2)).await.unwrap();
    assert_eq!(listed, [third, second]);
    assert_eq!(scratch.store.all_kernels().await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_name_is_taken_until_its_kernel_is_deleted() {
    let scratch = Scratch::new().await;
    let first = scratch
        .store
        .insert_kernel(&kernel("a"), false)
        .await
        .unwrap();
    let error = scratch
        .store
        .insert_kernel(&kernel("a"), true)
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "NAME_TAKEN");
    let default = scratch.store.default_kernel().await.unwrap();
    assert_eq!(default, Some(first.clone()), "a refusal changes nothing");
    let outcome = scratch.store.delete_kernel(first.id).await.unwrap();
    assert_eq!(outcome, DeleteOutcome::Deleted);
    scratch
        .store
        .insert_kernel(&kernel("a"), false)
        .await
        .unwrap();
}

#[tokio::test]
async fn when_the_default_goes_none_is_default() {
    let scratch = Scratch::new().await;
    let first = scratch
        .store
        .insert_kernel(&kernel("a"), false)
        .await
        .unwrap();
    scratch
        .store
        .insert_kernel(&kernel("b"), false)
        .await
        .unwrap();
    scratch.store.delete_kernel(first.id).await.unwrap();
    assert_eq!(scratch.store.default_kernel().await.unwrap(), None);
    let outcome = scratch.store.delete_kernel(first.id).await.unwrap();
    assert_eq!(outcome, DeleteOutcome::Missing);
}

#[tokio::test]
async fn a_replacement_takes_name_and_default() {
    let scratch = Scratch::new().await;
    let old = scratch
        .store
        .insert_kernel(&kernel("a"), false)
        .await
        .unwrap();
    let new = kernel("a");
    let outcome = scratch
        .store
        .replace_kernel(old.id, &new, false)
        .await
        .unwrap();
    let mut expected = new;
    expected.is_default = true;
    assert_eq!(
        outcome,
        ReplaceOutcome::Replaced(Box::new(expected.clone()))
    );
    assert_eq!(scratch.store.all_kernels().await.unwrap(), [expected]);
}

#[tokio::test]
async fn a_replacement_that_is_refused_changes_nothing() {
    let scratch = Scratch::new().await;
    let a = scratch
        .store
        .insert_kernel(&kernel("a"), false)
        .await
        .unwrap();
    let b = scratch
        .store
        .insert_kernel(&kernel("b"), false)
        .await
        .unwrap();
    let error = scratch
        .store
        .replace_kernel(b.id, &kernel("a"), true)
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "NAME_TAKEN");
    let outcome = scratch
        .store
        .replace_kernel(KernelId::new(), &kernel("c"), true)
        .await
        .unwrap();
    assert_eq!(outcome, ReplaceOutcome::Missing);
    let mut vm = vm("web");
    vm.kernel = Some(b.id);
    scratch.store.insert_vm(&vm).await.unwrap();
    let outcome = scratch
        .store
        .replace_kernel(b.id, &kernel("b"), true)
        .await
        .unwrap();
    assert_eq!(outcome, ReplaceOutcome::UsedBy(vec![name("web")]));
    let outcome = scratch.store.delete_kernel(b.id).await.unwrap();
    assert_eq!(outcome, DeleteOutcome::UsedBy(vec![name("web")]));
    assert_eq!(scratch.store.all_kernels().await.unwrap(), [a, b]);
}

#[tokio::test]
async fn a_kernel_that_an_image_names_goes_only_if_that_does_not_matter() {
    let scratch = Scratch::new().await;
    let store = &scratch.store;
    let kept = store.insert_kernel(&kernel("k"), false).await.unwrap();
    let other = store.insert_kernel(&kernel("other"), false).await.unwrap();
    let mut image = image("one");
    image.kernel = Some(name("k"));
    store.insert_image(&image, "a").await.unwrap();
    let outcome = store.delete_kernel_unless_named(other.id).await.unwrap();
    assert_eq!(outcome, DeleteOutcome::Deleted);
    let outcome = store.delete_kernel_unless_named(kept.id).await.unwrap();
    assert_eq!(outcome, DeleteOutcome::Missing);
    assert!(store.get_kernel(kept.id).await.unwrap().is_some());
    let outcome = store.delete_kernel(kept.id).await.unwrap();
    assert_eq!(outcome, DeleteOutcome::Deleted);
}
