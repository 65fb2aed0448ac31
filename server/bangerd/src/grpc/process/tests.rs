use banger_core::session::TerminalSize;

use super::*;

fn exec(message: v1::exec_request::Message) -> v1::ExecRequest {
    v1::ExecRequest {
        message: Some(message),
    }
}

fn text(parsed: Parsed) -> String {
    parsed
        .err()
        .map_or_else(String::new, |error| error.to_string())
}

#[test]
fn each_message_of_an_exec_is_checked() {
    use v1::exec_request::Message;
    let (signals, mut sent) = signals();
    let parse = |message| exec_input(exec(message), &signals);
    assert_eq!(
        parse(Message::CloseStdin(v1::CloseStdin {})),
        Ok(Some(SessionInput::CloseStdin))
    );
    let size = TerminalSize {
        rows: 3,
        columns: 4,
    };
    assert_eq!(
        parse(Message::Resize(v1::TerminalSize {
            rows: 3,
            columns: 4
        })),
        Ok(Some(SessionInput::Resize(size)))
    );
    assert_eq!(parse(Message::Signal(15)), Ok(None));
    assert_eq!(sent.try_recv(), Ok(15));
    assert_eq!(
        text(parse(Message::Signal(0))),
        "signal is 0, and signals are 1 to 64"
    );
    assert_eq!(
        text(parse(Message::Start(v1::ExecStart::default()))),
        "start comes a second time"
    );
    assert_eq!(
        text(exec_input(v1::ExecRequest::default(), &signals)),
        "message is missing"
    );
}

#[test]
fn signals_beyond_those_that_wait_are_dropped_and_end_nothing() {
    use v1::exec_request::Message;
    let (signals, mut sent) = signals();
    let parse = || exec_input(exec(Message::Signal(2)), &signals);
    for _ in 0..=SIGNALS_WAITING {
        assert_eq!(parse(), Ok(None));
    }
    let waiting = std::iter::from_fn(|| sent.try_recv().ok());
    assert_eq!(waiting.count(), SIGNALS_WAITING);
}

#[tokio::test]
async fn wrong_input_ends_the_output_with_its_status() {
    let (fault, faults) = oneshot::channel();
    let messages = stream::iter([Ok("output")]).chain(stream::pending());
    let mut messages = until_fault(messages.boxed(), faults);
    assert_eq!(messages.next().await.unwrap().unwrap(), "output");
    fault.send(RequestError::missing("message")).unwrap();
    assert_eq!(
        messages.next().await.unwrap().unwrap_err().message(),
        "message is missing"
    );
    assert!(messages.next().await.is_none());
}

#[tokio::test]
async fn output_ends_by_itself_though_input_goes_on() {
    let (_fault, faults) = oneshot::channel();
    let mut messages = until_fault(stream::iter([Ok("output")]).boxed(), faults);
    assert!(messages.next().await.unwrap().is_ok());
    assert!(messages.next().await.is_none());
}

#[tokio::test]
async fn output_goes_on_though_input_has_ended() {
    let (fault, faults) = oneshot::channel();
    drop(fault);
    let mut messages = until_fault(stream::iter([Ok(1), Ok(2)]).boxed(), faults);
    assert_eq!(messages.next().await.unwrap().unwrap(), 1);
    assert_eq!(messages.next().await.unwrap().unwrap(), 2);
    assert!(messages.next().await.is_none());
}
