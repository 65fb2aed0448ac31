use banger_core::image::{Image, TakeOver};
use banger_core::{Digest, Explain as _, ImageId};
use banger_store::{DeleteOutcome, Page, TagOutcome, UntagOutcome};

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
async fn a_reference_is_taken_over_or_not_where_the_row_is_written() {
    let scratch = Scratch::new().await;
    let store = &scratch.store;
    let insert = async |image: &Image, reference: &str, but_of| {
        let inserted = store.insert_image_unless_taken(image, reference, but_of);
        inserted.await.unwrap()
    };
    let first = store.insert_image(&image("1"), "a").await.unwrap();
    assert_eq!(insert(&image("2"), "a", None).await, None);
    assert_eq!(
        store.count_images().await.unwrap(),
        1,
        "no row without a name"
    );
    let mut again = image("1");
    again.kernel = Some(name("k"));
    assert_eq!(insert(&again, "a", None).await.unwrap().id, first.id);
    let free = insert(&image("2"), "b", None).await.unwrap();
    assert_eq!(free.references, ["b"]);
    // A refusal changes nothing of an image that is here.
    again.kernel = Some(name("other"));
    assert_eq!(insert(&again, "b", None).await, None);
    let kept = store.get_image(first.id).await.unwrap().unwrap();
    assert_eq!(kept.kernel, Some(name("k")));
    // It may be taken from what came from there, and from nothing else.
    assert_eq!(insert(&image("3"), "a", Some("elsewhere")).await, None);
    let origin = first.origin.split(' ').next();
    let robbed = insert(&image("3"), "a", origin).await.unwrap();
    assert_eq!(robbed.references, ["a"]);
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

#[tokio::test]
async fn a_reference_is_taken_over_only_where_that_is_allowed() {
    let scratch = Scratch::new().await;
    let store = &scratch.store;
    let first = store.insert_image(&image("a"), "one:1").await.unwrap();
    let second = store.insert_image(&image("b"), "two:1").await.unwrap();
    let tag =
        async |id, reference, take_over| store.tag_image(id, reference, take_over).await.unwrap();
    assert_eq!(
        tag(first.id, "two:1", TakeOver::Refused).await,
        TagOutcome::Taken
    );
    assert_eq!(
        store
            .get_image(second.id)
            .await
            .unwrap()
            .unwrap()
            .references,
        ["two:1"]
    );
    // One's own reference is no other's.
    assert!(matches!(
        tag(second.id, "two:1", TakeOver::Refused).await,
        TagOutcome::Tagged(_)
    ));
    let TagOutcome::Tagged(tagged) = tag(first.id, "two:1", TakeOver::Allowed).await else {
        panic!("not tagged");
    };
    assert_eq!(tagged.references, ["one:1", "two:1"]);
    assert!(
        store
            .get_image(second.id)
            .await
            .unwrap()
            .unwrap()
            .references
            .is_empty()
    );
    assert_eq!(
        tag(ImageId::new(), "x:1", TakeOver::Allowed).await,
        TagOutcome::Missing
    );
    assert_eq!(store.find_image_by_reference("x:1").await.unwrap(), None);
}

#[tokio::test]
async fn the_last_reference_is_not_taken_away() {
    let scratch = Scratch::new().await;
    let store = &scratch.store;
    let kept = store.insert_image(&image("a"), "one:1").await.unwrap();
    assert_eq!(
        store.untag_image("one:1").await.unwrap(),
        UntagOutcome::Last
    );
    store
        .tag_image(kept.id, "one:2", TakeOver::Refused)
        .await
        .unwrap();
    assert_eq!(
        store.untag_image("one:1").await.unwrap(),
        UntagOutcome::Untagged
    );
    assert_eq!(
        store.untag_image("one:1").await.unwrap(),
        UntagOutcome::Missing
    );
    assert_eq!(
        store.get_image(kept.id).await.unwrap().unwrap().references,
        ["one:2"]
    );
}

#[tokio::test]
async fn the_same_content_again_takes_a_new_kernel_and_keeps_the_old_one_otherwise() {
    let scratch = Scratch::new().await;
    let store = &scratch.store;
    let mut again = image("a");
    store.insert_image(&again, "one:1").await.unwrap();
    again.kernel = None;
    let kept = store.insert_image(&again, "one:1").await.unwrap();
    assert_eq!(kept.kernel, Some(name("small")));
    again.kernel = Some(name("large"));
    let kept = store.insert_image(&again, "one:1").await.unwrap();
    assert_eq!(kept.kernel, Some(name("large")));
}
