use banger_core::{Digest, Explain as _, ImageId};
use banger_store::{DeleteOutcome, Page};

use crate::support::{Scratch, image, name, vm};

#[tokio::test]
async fn an_image_comes_back_as_it_went_with_its_reference() {
    let scratch = Scratch::new().await;
    let mut image = image("one");
    let stored = scratch
        .store
        .insert_image(&image, "r.example/a:\"odd'\\")
        .await
        .unwrap();
    image.references = vec!["r.example/a:\"odd'\\".into()];
    assert_eq!(stored, image);
    let got = scratch.store.get_image(image.id).await.unwrap();
    assert_eq!(got, Some(image.clone()));
    let found = scratch
        .store
        .find_image_by_reference("r.example/a:\"odd'\\")
        .await
        .unwrap();
    assert_eq!(found, Some(image.clone()));
    let found = scratch
        .store
        .find_images_by_digest(&image.digest)
        .await
        .unwrap();
    assert_eq!(found, [image]);
}

#[tokio::test]
async fn the_same_content_is_kept_once_and_gains_the_reference() {
    let scratch = Scratch::new().await;
    let first = scratch
        .store
        .insert_image(&image("one"), "b")
        .await
        .unwrap();
    let again = scratch
        .store
        .insert_image(&image("one"), "a")
        .await
        .unwrap();
    assert_eq!(again.id, first.id);
    assert_eq!(again.references, ["a", "b"]);
    assert_eq!(scratch.store.count_images().await.unwrap(), 1);
}

#[tokio::test]
async fn another_platform_is_another_image() {
    let scratch = Scratch::new().await;
    let first = image("one");
    let mut second = image("one");
    second.platform.variant = None;
    scratch.store.insert_image(&first, "a").await.unwrap();
    scratch.store.insert_image(&second, "b").await.unwrap();
    let mut third = second.clone();
    third.id = ImageId::new();
    scratch.store.insert_image(&third, "c").await.unwrap();
    let found = scratch
        .store
        .find_images_by_digest(&first.digest)
        .await
        .unwrap();
    let ids: Vec<ImageId> = found.iter().map(|image| image.id).collect();
    assert_eq!(ids, [second.id, first.id]);
    assert_eq!(found[0].references, ["b", "c"]);
}

#[tokio::test]
async fn a_reference_moves_and_the_old_image_stays() {
    let scratch = Scratch::new().await;
    let old = scratch
        .store
        .insert_image(&image("old"), "a")
        .await
        .unwrap();
    let new = scratch
        .store
        .insert_image(&image("new"), "a")
        .await
        .unwrap();
    let found = scratch.store.find_image_by_reference("a").await.unwrap();
    assert_eq!(found.map(|image| image.id), Some(new.id));
    let old = scratch.store.get_image(old.id).await.unwrap().unwrap();
    assert!(old.references.is_empty());
}

#[tokio::test]
async fn an_image_in_use_is_not_deleted() {
    let scratch = Scratch::new().await;
    let image = scratch
        .store
        .insert_image(&image("one"), "a")
        .await
        .unwrap();
    let mut vms = Vec::new();
    for text in ["web", "db"] {
        let mut vm = vm(text);
        vm.image = Some(image.id);
        scratch.store.insert_vm(&vm).await.unwrap();
        vms.push(vm.id);
    }
    let outcome = scratch.store.delete_image(image.id).await.unwrap();
    assert_eq!(
        outcome,
        DeleteOutcome::UsedBy(vec![name("db"), name("web")])
    );
    for id in vms {
        scratch.store.delete_vm(id).await.unwrap();
    }
    for outcome in [DeleteOutcome::Deleted, DeleteOutcome::Missing] {
        assert_eq!(scratch.store.delete_image(image.id).await.unwrap(), outcome);
    }
    assert_eq!(
        scratch.store.find_image_by_reference("a").await.unwrap(),
        None
    );
}

#[tokio::test]
async fn other_content_under_a_used_id_is_refused() {
    let scratch = Scratch::new().await;
    let first = image("one");
    let mut second = image("two");
    second.id = first.id;
    scratch.store.insert_image(&first, "a").await.unwrap();
    let error = scratch.store.insert_image(&second, "a").await.unwrap_err();
    assert_eq!(error.reason(), "ID_TAKEN");
    let found = scratch.store.find_image_by_reference("a").await.unwrap();
    assert_eq!(found.map(|image| image.digest), Some(Digest::of(b"one")));
}

#[tokio::test]
async fn lists_are_newest_first() {
    let scratch = Scratch::new().await;
    let first = scratch.store.insert_image(&image("1"), "a").await.unwrap();
    let second = scratch.store.insert_image(&image("2"), "b").await.unwrap();
    let all = scratch.store.all_images().await.unwrap();
    assert_eq!(all, [first.clone(), second.clone()]);
    let page = scratch.store.list_images(Page::first(1)).await.unwrap();
    assert_eq!(page, all[1..]);
    let page = scratch
        .store
        .list_images(Page::after(second.id, 9))
        .await
        .unwrap();
    assert_eq!(page, [first]);
}
