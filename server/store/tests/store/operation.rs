use banger_core::operation::{OperationKind, OperationState};
use banger_core::{Explain as _, Owner};
use banger_store::{
    Answer, AnswerBounds, InsertOperation, Keep, OperationOutcome, Page, RequestKey,
};

use crate::support::{Scratch, at, ended, failure, key, operation};

#[tokio::test]
async fn an_operation_comes_back_as_it_went_in_every_kind() {
    let scratch = Scratch::new().await;
    for kind in OperationKind::ALL {
        let mut operation = operation();
        operation.kind = kind;
        scratch
            .store
            .insert_operation(&operation, None)
            .await
            .unwrap();
        let stored = scratch.store.get_operation(operation.id).await.unwrap();
        assert_eq!(stored, Some(operation));
    }
}

#[tokio::test]
async fn the_same_call_joins_and_another_conflicts() {
    let scratch = Scratch::new().await;
    let (first, second) = (operation(), operation());
    let store = &scratch.store;
    let outcome = store
        .insert_operation(&first, Some(&key("r", "body")))
        .await
        .unwrap();
    assert_eq!(outcome, InsertOperation::Inserted);
    let outcome = store
        .insert_operation(&second, Some(&key("r", "body")))
        .await
        .unwrap();
    assert_eq!(outcome, InsertOperation::Joined(first.id));
    let outcome = store
        .insert_operation(&second, Some(&key("r", "other")))
        .await
        .unwrap();
    assert_eq!(outcome, InsertOperation::Conflict);
    let mut method = key("r", "body");
    method.method = "/banger.v1.ImageService/PullImage".into();
    let outcome = store
        .insert_operation(&second, Some(&method))
        .await
        .unwrap();
    assert_eq!(outcome, InsertOperation::Conflict);
    assert_eq!(store.get_operation(second.id).await.unwrap(), None);
}

#[tokio::test]
async fn of_many_equal_calls_at_once_one_begins_and_all_join_it() {
    let scratch = Scratch::new().await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let store = scratch.store.clone();
        calls.spawn(async move {
            let operation = operation();
            match store
                .insert_operation(&operation, Some(&key("r", "body")))
                .await
                .unwrap()
            {
                InsertOperation::Inserted => (1, operation.id),
                InsertOperation::Joined(id) => (0, id),
                InsertOperation::Conflict => panic!("the call is the same"),
            }
        });
    }
    let calls = calls.join_all().await;
    assert_eq!(calls.iter().map(|(begun, _)| begun).sum::<i32>(), 1);
    assert!(calls.iter().all(|(_, id)| *id == calls[0].1));
}

#[tokio::test]
async fn an_ended_operation_never_changes_again() {
    let scratch = Scratch::new().await;
    let store = &scratch.store;
    let mut running = operation();
    assert_eq!(
        store.update_operation(&running).await.unwrap(),
        OperationOutcome::Missing
    );
    store.insert_operation(&running, None).await.unwrap();
    running.target = "0190".into();
    running.stages.clear();
    assert_eq!(
        store.update_operation(&running).await.unwrap(),
        OperationOutcome::Updated
    );
    assert_eq!(store.running_operations().await.unwrap(), [running.clone()]);
    let mut end = running.clone();
    end.state = OperationState::Failed { failure: failure() };
    end.end_time = Some(at(9));
    assert_eq!(
        store.update_operation(&end).await.unwrap(),
        OperationOutcome::Updated
    );
    for late in [running.clone(), ended(running, 10)] {
        assert_eq!(
            store.update_operation(&late).await.unwrap(),
            OperationOutcome::Final
        );
    }
    assert_eq!(store.get_operation(end.id).await.unwrap(), Some(end));
    assert_eq!(store.running_operations().await.unwrap(), []);
}

#[tokio::test]
async fn an_end_without_its_time_is_refused() {
    let scratch = Scratch::new().await;
    let mut operation = operation();
    operation.state = OperationState::Succeeded;
    let error = scratch
        .store
        .insert_operation(&operation, None)
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "STORE_FAILED");
}

/// So many, and none for the sake of a repeat.
fn keep(at_most: u32) -> Keep {
    Keep {
        since: at(3),
        at_most,
        repeats_since: at(1000),
        repeats_at_most: 100,
    }
}

#[tokio::test]
async fn pruning_spares_running_operations_and_the_newest() {
    let scratch = Scratch::new().await;
    let store = &scratch.store;
    let mut ids = Vec::new();
    for second in [1, 2, 30, 31, 32] {
        let operation = operation();
        ids.push(operation.id);
        let key = key(&operation.id.to_string(), "");
        store
            .insert_operation(&operation, Some(&key))
            .await
            .unwrap();
        store
            .update_operation(&ended(operation, second))
            .await
            .unwrap();
    }
    let running = operation();
    store.insert_operation(&running, None).await.unwrap();
    assert_eq!(store.prune_operations(keep(10)).await.unwrap(), 2);
    assert_eq!(store.prune_operations(keep(2)).await.unwrap(), 1);
    let left = store.list_operations(Page::first(10), None).await.unwrap();
    let left: Vec<_> = left.iter().map(|operation| operation.id).collect();
    assert_eq!(left, [running.id, ids[4], ids[3]]);
    let outcome = store
        .insert_operation(&operation(), Some(&key(&ids[0].to_string(), "other")))
        .await
        .unwrap();
    assert_eq!(
        outcome,
        InsertOperation::Inserted,
        "its request id went with it"
    );
}

#[tokio::test]
async fn many_operations_of_one_owner_make_nothing_of_anothers_forgotten() {
    let scratch = Scratch::new().await;
    let store = &scratch.store;
    let own = |uid, id: &str| key(id, "").of(&Owner::of_uid(uid));
    let mut first = operation();
    first.owner = Owner::of_uid(1);
    let call = own(1, "first");
    assert_eq!(store.begun_by(&call).await.unwrap(), None);
    store.insert_operation(&first, Some(&call)).await.unwrap();
    let id = first.id;
    store.update_operation(&ended(first, 30)).await.unwrap();
    for number in 0..5 {
        let mut flood = operation();
        flood.owner = Owner::of_uid(2);
        let call = own(2, &number.to_string());
        store.insert_operation(&flood, Some(&call)).await.unwrap();
        store.update_operation(&ended(flood, 31)).await.unwrap();
    }
    assert_eq!(store.prune_operations(keep(2)).await.unwrap(), 3);
    let again = store.insert_operation(&operation(), Some(&call)).await;
    assert_eq!(again.unwrap(), InsertOperation::Joined(id));
    let begun = store.begun_by(&call).await.unwrap();
    assert_eq!(begun, Some(InsertOperation::Joined(id)));
}

#[tokio::test]
async fn an_owners_own_flood_makes_none_of_its_recent_calls_forgotten() {
    let scratch = Scratch::new().await;
    let store = &scratch.store;
    let own = |id: &str| key(id, "").of(&Owner::of_uid(1));
    let record = async |id: Option<&str>, second| {
        let mut made = operation();
        made.owner = Owner::of_uid(1);
        let (id, call) = (made.id, id.map(own));
        let inserted = store.insert_operation(&made, call.as_ref()).await;
        assert_eq!(inserted.unwrap(), InsertOperation::Inserted);
        store.update_operation(&ended(made, second)).await.unwrap();
        id
    };
    record(Some("old"), 20).await;
    let recent = record(Some("recent"), 30).await;
    for number in 0..5 {
        record(Some(&number.to_string()), 31).await;
    }
    // Nobody asks again for what has no request id.
    for _ in 0..5 {
        record(None, 32).await;
    }
    let keep = Keep {
        repeats_since: at(25),
        ..keep(2)
    };
    assert_eq!(store.prune_operations(keep).await.unwrap(), 1 + 3);
    let again = store
        .insert_operation(&operation(), Some(&own("recent")))
        .await;
    assert_eq!(again.unwrap(), InsertOperation::Joined(recent));
    let old = store.begun_by(&own("old")).await.unwrap();
    assert_eq!(old, None);
    // Some are too many however recent they are, and of others' none goes.
    let mut others = operation();
    others.owner = Owner::of_uid(2);
    let call = key("first", "").of(&Owner::of_uid(2));
    store.insert_operation(&others, Some(&call)).await.unwrap();
    let id = others.id;
    store.update_operation(&ended(others, 30)).await.unwrap();
    let keep = Keep {
        repeats_at_most: 4,
        ..keep
    };
    assert_eq!(store.prune_operations(keep).await.unwrap(), 4);
    let left = store
        .list_operations(Page::first(100), Some(&Owner::of_uid(1)))
        .await
        .unwrap();
    assert_eq!(left.len(), 4);
    assert_eq!(
        store.begun_by(&call).await.unwrap(),
        Some(InsertOperation::Joined(id))
    );
}

#[tokio::test]
async fn the_first_answer_to_a_call_stays() {
    let scratch = Scratch::new().await;
    let store = &scratch.store;
    let call = key("r", "body");
    assert_eq!(store.get_answer(&call).await.unwrap(), Answer::None);
    assert!(store.put_answer(&call, b"").await.unwrap());
    assert!(!store.put_answer(&call, b"second").await.unwrap());
    assert_eq!(
        store.get_answer(&call).await.unwrap(),
        Answer::Stored(Vec::new())
    );
    assert_eq!(
        store.get_answer(&key("r", "other")).await.unwrap(),
        Answer::Conflict
    );
    let outcome = store
        .insert_operation(&operation(), Some(&call))
        .await
        .unwrap();
    assert_eq!(outcome, InsertOperation::Conflict);
}

#[tokio::test]
async fn a_forgotten_answer_frees_its_request_id_and_no_other() {
    let scratch = Scratch::new().await;
    let store = &scratch.store;
    let (one, two) = (key("r", "body"), key("s", "body"));
    store.put_answer(&one, b"1").await.unwrap();
    store.put_answer(&two, b"2").await.unwrap();
    store.delete_answer(&one).await.unwrap();
    assert_eq!(store.get_answer(&one).await.unwrap(), Answer::None);
    assert_eq!(
        store.get_answer(&two).await.unwrap(),
        Answer::Stored(b"2".to_vec())
    );
}

#[tokio::test]
async fn many_answers_of_one_owner_push_out_its_own_oldest_and_no_others() {
    let scratch = Scratch::new().await;
    let store = &scratch.store;
    let of = |uid, id: &str| key(id, "").of(&Owner::of_uid(uid));
    let bounds = AnswerBounds {
        count_max: 3,
        bytes_max: 100,
    };
    let put = async |key: &RequestKey, length: usize| {
        let answer = vec![7; length];
        store.put_answer_within(key, &answer, bounds).await.unwrap()
    };
    let kept = async |uid: u32, ids: &[&str]| {
        let mut kept = Vec::new();
        for id in ids {
            if store.get_answer(&of(uid, id)).await.unwrap() != Answer::None {
                kept.push((*id).to_owned());
            }
        }
        kept
    };
    assert!(put(&of(2, "a"), 10).await);
    let ids = ["a", "b", "c", "d", "e"];
    for id in ids {
        assert!(put(&of(1, id), 10).await, "{id} is the first of its owner");
    }
    assert_eq!(kept(1, &ids).await, ["c", "d", "e"]);
    // A repeat is answered, and changes nothing.
    assert!(!put(&of(1, "c"), 10).await);
    assert_eq!(kept(1, &ids).await, ["c", "d", "e"]);
    // Long ones count by their bytes; the newest stays whatever it has.
    assert!(put(&of(1, "long"), 85).await);
    assert_eq!(kept(1, &["c", "d", "e", "long"]).await, ["e", "long"]);
    assert!(put(&of(1, "longer"), 500).await);
    assert_eq!(kept(1, &["e", "long", "longer"]).await, ["longer"]);
    // What is forgotten otherwise makes room.
    store.delete_answer(&of(1, "longer")).await.unwrap();
    for id in ids {
        put(&of(1, id), 0).await;
    }
    assert_eq!(kept(1, &ids).await, ["c", "d", "e"]);
    let future = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(60);
    assert_eq!(kept(2, &["a"]).await, ["a"]);
    assert_eq!(store.prune_answers(future).await.unwrap(), 4);
    assert!(put(&of(1, "a"), 10).await);
}

#[tokio::test]
async fn old_answers_are_pruned_and_operations_keep_their_requests() {
    let scratch = Scratch::new().await;
    let store = &scratch.store;
    store.put_answer(&key("a", ""), b"x").await.unwrap();
    let operation = operation();
    store
        .insert_operation(&operation, Some(&key("o", "")))
        .await
        .unwrap();
    assert_eq!(store.prune_answers(at(0)).await.unwrap(), 0);
    let future = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(60);
    assert_eq!(store.prune_answers(future).await.unwrap(), 1);
    assert_eq!(store.get_answer(&key("a", "")).await.unwrap(), Answer::None);
    let outcome = store
        .insert_operation(&operation, Some(&key("o", "")))
        .await
        .unwrap();
    assert_eq!(outcome, InsertOperation::Joined(operation.id));
}
