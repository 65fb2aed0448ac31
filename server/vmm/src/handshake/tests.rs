use tokio::io::{DuplexStream, duplex};

use super::*;

const NONCE: &str = "0123456789abcdef0123456789abcdef";

/// Runs the host's side against what `agent` does.
async fn greeted<F, Fut>(agent: F) -> io::Result<Vec<u8>>
where
    F: FnOnce(DuplexStream) -> Fut,
    Fut: Future<Output = DuplexStream>,
{
    let (mut host, guest) = duplex(64 * 1024);
    let (answer, _guest) = tokio::join!(greet(&mut host, NONCE), agent(guest));
    answer
}

async fn read_hello(guest: &mut DuplexStream) {
    let mut line = [0; 39];
    guest.read_exact(&mut line).await.unwrap();
    assert_eq!(line, format!("HELLO {NONCE}\n").as_bytes());
}

#[tokio::test]
async fn an_agent_that_answers_is_ready_and_later_bytes_are_kept() {
    let rest = greeted(|mut guest| async move {
        guest.write_all(b"AGENT\n").await.unwrap();
        read_hello(&mut guest).await;
        guest
            .write_all(format!("READY {NONCE}\nPRI\n").as_bytes())
            .await
            .unwrap();
        guest
    });
    assert_eq!(rest.await.unwrap(), b"PRI\n");
}

#[tokio::test]
async fn an_answer_to_an_older_conversation_does_not_count() {
    let rest = greeted(|mut guest| async move {
        guest
            .write_all(b"READY ffffffffffffffffffffffffffffffff\nX")
            .await
            .unwrap();
        read_hello(&mut guest).await;
        guest
            .write_all(format!("READY {NONCE}\n").as_bytes())
            .await
            .unwrap();
        guest
    });
    assert_eq!(rest.await.unwrap(), b"");
}

#[tokio::test]
async fn garbage_of_a_former_conversation_hides_no_line() {
    let rest = greeted(|mut guest| async move {
        guest.write_all(&[0xff; 100_000]).await.unwrap();
        guest.write_all(b"AGENT\n\0\0\x08\x07goaway").await.unwrap();
        read_hello(&mut guest).await;
        guest
            .write_all(format!("\x01READY {NONCE}\n").as_bytes())
            .await
            .unwrap();
        guest
    });
    assert_eq!(rest.await.unwrap(), b"");
}

#[tokio::test]
async fn each_line_of_the_agent_is_answered_with_hello() {
    greeted(|mut guest| async move {
        read_hello(&mut guest).await;
        for _ in 0..3 {
            guest.write_all(b"AGENT\n").await.unwrap();
            read_hello(&mut guest).await;
        }
        guest
            .write_all(format!("READY {NONCE}\n").as_bytes())
            .await
            .unwrap();
        guest
    })
    .await
    .unwrap();
}

#[tokio::test(start_paused = true)]
async fn hello_is_repeated_into_silence() {
    greeted(|mut guest| async move {
        for _ in 0..5 {
            read_hello(&mut guest).await;
        }
        guest
            .write_all(format!("READY {NONCE}\n").as_bytes())
            .await
            .unwrap();
        guest
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_stream_that_ends_is_an_error() {
    let (mut host, guest) = duplex(64);
    drop(guest);
    assert!(greet(&mut host, NONCE).await.is_err());
    let (mut host, mut guest) = duplex(64);
    guest.write_all(b"AGENT").await.unwrap();
    drop(guest);
    assert_eq!(
        hear_agent(&mut host).await.unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );
}

#[tokio::test]
async fn an_agent_is_heard_through_garbage() {
    let (mut host, mut guest) = duplex(64 * 1024);
    guest.write_all(b"\0\0\nxx").await.unwrap();
    guest.write_all(b"AGENT\n").await.unwrap();
    hear_agent(&mut host).await.unwrap();
}

#[test]
fn an_endless_line_is_remembered_in_bounds() {
    let mut lines = Lines::default();
    assert_eq!(lines.find(&[b'x'; 10_000], b"READY"), Found::Nothing);
    assert_eq!(lines.unfinished.len(), MAX_LINE);
}

#[test]
fn a_nonce_is_32_lower_case_digits_and_differs() {
    let nonce = nonce();
    assert_eq!(nonce.len(), 32);
    assert!(
        nonce
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    );
    assert_ne!(nonce, super::nonce());
}

proptest::proptest! {
    #[test]
    fn a_line_is_found_however_the_stream_is_cut(
        garbage in proptest::collection::vec(0_u8.., 0..300),
        cuts in proptest::collection::vec(1_usize..50, 1..40),
    ) {
        let mut stream = garbage;
        stream.extend_from_slice(format!("\nREADY {NONCE}\nrest").as_bytes());
        let mut lines = Lines::default();
        let awaited = format!("READY {NONCE}");
        let (mut at, mut cuts) = (0, cuts.iter().cycle());
        loop {
            let end = (at + cuts.next().unwrap()).min(stream.len());
            if let Found::Awaited { rest } = lines.find(&stream[at..end], awaited.as_bytes()) {
                proptest::prop_assert_eq!(&stream[at + rest..], b"rest");
                break;
            }
            proptest::prop_assert!(end < stream.len(), "the line was missed");
            at = end;
        }
    }
}
