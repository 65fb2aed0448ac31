use std::collections::BTreeMap;

use banger_core::volume::{Volume, VolumeMount, VolumeUser};
use banger_core::{Explain as _, Owner, VolumeId};
use banger_store::{CasOutcome, DeleteOutcome, Page, StoreError};

use crate::support::{Scratch, at, name, vm};

fn volume(text: &str) -> Volume {
    Volume {
        id: VolumeId::new(),
        name: name(text),
        labels: BTreeMap::from([("team".to_owned(), "a'b\"c".to_owned())]),
        size_mib: 1024,
        seed: Some(name("seed")),
        owner: Owner::of_uid(7),
        generation: 1,
        create_time: at(5),
    }
}

fn mount(volume: &Volume, read_only: bool) -> VolumeMount {
    VolumeMount {
        volume: volume.id,
        name: volume.name.clone(),
        path: "/data".into(),
        read_only,
    }
}

#[tokio::test]
async fn a_volume_is_kept_as_it_was_given() {
    let scratch = Scratch::new().await;
    let made = volume("data");
    scratch.store.insert_volume(&made).await.unwrap();
    let found = scratch.store.get_volume(made.id).await.unwrap();
    assert_eq!(found.as_ref(), Some(&made));
    let found = scratch.store.find_volume(&made.name).await.unwrap();
    assert_eq!(found, Some(made.clone()));
    assert_eq!(scratch.store.all_volumes().await.unwrap().len(), 1);
    let error = scratch.store.insert_volume(&volume("data")).await;
    assert_eq!(error.unwrap_err().reason(), "NAME_TAKEN");
}

#[tokio::test]
async fn a_list_has_what_has_all_the_labels() {
    let scratch = Scratch::new().await;
    let mut made = Vec::new();
    for (number, labels) in [vec![], vec![("a", "1")], vec![("a", "1"), ("b", "2")]]
        .into_iter()
        .enumerate()
    {
        let mut volume = volume(&format!("v{number}"));
        volume.labels = labels
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        scratch.store.insert_volume(&volume).await.unwrap();
        made.push(volume);
    }
    let listed = async |labels: &[(&str, &str)]| {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let page = Page::first(10);
        let found = scratch
            .store
            .list_volumes(page, None, &labels.collect())
            .await;
        found
            .unwrap()
            .into_iter()
            .map(|volume| volume.name.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(listed(&[]).await, ["v2", "v1", "v0"]);
    assert_eq!(listed(&[("a", "1")]).await, ["v2", "v1"]);
    assert_eq!(listed(&[("a", "1"), ("b", "2")]).await, ["v2"]);
    assert!(listed(&[("a", "2")]).await.is_empty());
    let page = Page::after(made[2].id, 1);
    let next = scratch
        .store
        .list_volumes(page, None, &BTreeMap::new())
        .await
        .unwrap();
    assert_eq!(next, [made[1].clone()]);
    assert_eq!(scratch.store.all_volumes().await.unwrap(), made);
}

#[tokio::test]
async fn a_volume_changes_by_compare_and_set() {
    let scratch = Scratch::new().await;
    let mut made = volume("data");
    scratch.store.insert_volume(&made).await.unwrap();
    made.generation = 2;
    made.size_mib = 2048;
    made.labels.clear();
    let updated = scratch.store.update_volume(&made).await.unwrap();
    assert_eq!(updated, CasOutcome::Updated);
    let found = scratch.store.get_volume(made.id).await.unwrap();
    assert_eq!(found, Some(made.clone()));
    let stale = scratch.store.update_volume(&made).await.unwrap();
    assert_eq!(stale, CasOutcome::Stale);
    let missing = scratch.store.update_volume(&volume("other")).await.unwrap();
    assert_eq!(missing, CasOutcome::Missing);
}

#[tokio::test]
async fn a_volume_that_vms_name_stays_until_they_are_gone() {
    let scratch = Scratch::new().await;
    let made = volume("data");
    scratch.store.insert_volume(&made).await.unwrap();
    let mut web = vm("web");
    web.spec.volumes = vec![mount(&made, true)];
    scratch.store.insert_vm(&web).await.unwrap();
    let found = scratch.store.get_vm(web.id).await.unwrap();
    assert_eq!(found, Some(web.clone()));
    let user = VolumeUser {
        vm: web.id,
        name: name("web"),
        read_only: true,
    };
    assert_eq!(scratch.store.volume_users(made.id).await.unwrap(), [user]);
    let outcome = scratch.store.delete_volume(made.id).await.unwrap();
    assert_eq!(outcome, DeleteOutcome::UsedBy(vec![name("web")]));
    scratch.store.delete_vm(web.id).await.unwrap();
    assert!(
        scratch
            .store
            .volume_users(made.id)
            .await
            .unwrap()
            .is_empty()
    );
    let outcome = scratch.store.delete_volume(made.id).await.unwrap();
    assert_eq!(outcome, DeleteOutcome::Deleted);
    let outcome = scratch.store.delete_volume(made.id).await.unwrap();
    assert_eq!(outcome, DeleteOutcome::Missing);
}

#[tokio::test]
async fn a_vm_cannot_name_a_volume_that_is_gone() {
    let scratch = Scratch::new().await;
    let mut web = vm("web");
    web.spec.volumes = vec![mount(&volume("data"), false)];
    let error = scratch.store.insert_vm(&web).await.unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::PartMissing {
                resource: "volume",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(scratch.store.get_vm(web.id).await.unwrap(), None);
}
