use tokio::io::{AsyncBufReadExt, BufReader};

use super::*;

const LIMIT: Duration = Duration::from_millis(300);
const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n";

/// QEMU's side: answers each line that comes with the next of `answers`, in which `ID` stands for the id.
async fn serve(stream: UnixStream, greeting: &str, answers: &[&str]) -> UnixStream {
    let mut stream = BufReader::new(stream);
    let _ = stream.write_all(greeting.as_bytes()).await;
    for answer in answers {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            break;
        }
        let id: serde_json::Value = serde_json::from_str(&line).unwrap();
        let answer = answer.replace("ID", &id["id"].to_string());
        let _ = stream.write_all(answer.as_bytes()).await;
    }
    stream.into_inner()
}

async fn opened(greeting: &str, answers: &[&str]) -> (Result<Qmp, VmmError>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let tracker = TaskTracker::new();
    tokio::join!(
        Qmp::open(
            ours,
            (LIMIT, LIMIT),
            &tracker,
            ShutdownReason::default(),
            CancellationToken::new()
        ),
        serve(theirs, greeting, answers)
    )
}

const OK: &str = "{\"return\": {}, \"id\": ID}\r\n";

#[tokio::test]
async fn a_command_is_answered() {
    let (qmp, theirs) = opened(GREETING, &[OK]).await;
    let qmp = qmp.unwrap();
    let (answer, _theirs) = tokio::join!(qmp.execute("cont"), serve(theirs, "", &[OK]));
    answer.unwrap();
}

#[tokio::test]
async fn a_refusal_carries_bounded_words() {
    let (qmp, theirs) = opened(GREETING, &[OK]).await;
    let refusal = format!(
        "{{\"error\":{{\"class\":\"G\",\"desc\":\"{}\"}},\"id\":ID}}\n",
        "é".repeat(2000)
    );
    let (qmp, answers) = (qmp.unwrap(), [refusal.as_str()]);
    let (answer, _theirs) = tokio::join!(qmp.execute("cont"), serve(theirs, "", &answers));
    let Err(VmmError::Refused { detail, .. }) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(detail.chars().count(), MAX_WORDS);
}

#[tokio::test]
async fn events_between_do_not_disturb_and_the_shutdown_is_remembered() {
    let (qmp, theirs) = opened(GREETING, &[OK]).await;
    let qmp = qmp.unwrap();
    assert_eq!(qmp.shared.reason.get(), None);
    let event = "{\"timestamp\":{},\"event\":\"SHUTDOWN\",\"data\":{\"guest\":true,\"reason\":\"guest-reset\"}}\n";
    let (answer, _theirs) = tokio::join!(
        qmp.execute("cont"),
        serve(theirs, event, &["{\"return\":{},\"id\":ID}\n"])
    );
    answer.unwrap();
    assert_eq!(qmp.shared.reason.get().as_deref(), Some("guest-reset"));
}

#[tokio::test]
async fn the_late_answer_of_a_dropped_command_is_not_the_answer_of_the_next() {
    let (qmp, mut theirs) = opened(GREETING, &[OK]).await;
    let qmp = qmp.unwrap();
    assert!(
        tokio::time::timeout(Duration::from_millis(20), qmp.execute("stop"))
            .await
            .is_err()
    );
    let id = qmp.writer.lock().await.next_id - 1;
    let late = format!("{{\"error\":{{\"class\":\"G\",\"desc\":\"late\"}},\"id\":{id}}}\n");
    theirs.write_all(late.as_bytes()).await.unwrap();
    // `serve` answers the dropped command first, then the one that is awaited.
    let answers = [late.as_str(), OK];
    let (answer, _theirs) = tokio::join!(qmp.execute("cont"), serve(theirs, "", &answers));
    answer.unwrap();
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let (qmp, _theirs) = opened("", &[]).await;
    assert!(
        matches!(
            qmp,
            Err(VmmError::Deadline {
                during: "greeting",
                ..
            })
        ),
        "{qmp:?}"
    );
    let (qmp, _theirs) = opened(GREETING, &[OK]).await;
    let answer = qmp.unwrap().execute("cont").await;
    assert!(
        matches!(answer, Err(VmmError::Deadline { during: "cont", .. })),
        "{answer:?}"
    );
}

#[tokio::test]
async fn garbage_for_a_greeting_is_refused() {
    for garbage in [
        "\n",
        "[]\n",
        "{}\n",
        "\0\0\n",
        "{\"QMP\"\n",
        &format!("{}\n", "x".repeat(MAX_LINE + 1)),
    ] {
        let (qmp, _theirs) = opened(garbage, &[]).await;
        assert!(
            matches!(qmp, Err(VmmError::Control { .. })),
            "{garbage:.20} {qmp:?}"
        );
    }
}

#[tokio::test]
async fn garbage_later_closes_the_connection_and_later_commands_fail_at_once() {
    let endless = format!("\"{}", "x".repeat(2 * MAX_LINE));
    for garbage in ["nonsense\n", &endless] {
        let (qmp, theirs) = opened(GREETING, &[OK]).await;
        let qmp = qmp.unwrap();
        let (answer, _theirs) = tokio::join!(qmp.execute("cont"), serve(theirs, garbage, &[]));
        assert!(
            matches!(answer, Err(VmmError::Control { .. })),
            "{answer:?}"
        );
        let answer = qmp.execute("cont").await;
        assert!(
            matches!(answer, Err(VmmError::Control { .. })),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn a_qemu_that_hangs_up_fails_the_command() {
    let (qmp, theirs) = opened(GREETING, &[OK]).await;
    drop(theirs);
    let answer = qmp.unwrap().execute("cont").await;
    assert!(
        matches!(answer, Err(VmmError::Control { .. })),
        "{answer:?}"
    );
}
