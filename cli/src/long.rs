//! Long work: its progress, and Ctrl-C, which gives it up in the daemon too.

use std::future::IntoFuture;
use std::sync::{Arc, Mutex, PoisonError};

use banger_sdk::{Client, types};

use crate::context::Context;
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::progress::{Progress, Style};

/// What the SDK calls with each change of an operation.
pub(crate) type Callback = Box<dyn FnMut(&types::Operation) + Send>;

/// Does long work to its end, showing its progress. A signal gives its operation up and waits until it is undone;
/// another one leaves it to itself.
pub(crate) async fn follow<T, W>(
    context: &Context,
    client: &Client,
    work: impl FnOnce(Callback) -> W,
) -> Result<T, Failure>
where
    W: IntoFuture<Output = banger_sdk::Result<T>>,
{
    follow_with(context.progress(), client, work).await
}

/// The same, with the progress shown by whoever shows the work's output.
pub(crate) async fn follow_silently<T, W>(
    client: &Client,
    work: impl FnOnce(Callback) -> W,
) -> Result<T, Failure>
where
    W: IntoFuture<Output = banger_sdk::Result<T>>,
{
    follow_with(Progress::new(Style::None), client, work).await
}

async fn follow_with<T, W>(
    progress: Progress,
    client: &Client,
    work: impl FnOnce(Callback) -> W,
) -> Result<T, Failure>
where
    W: IntoFuture<Output = banger_sdk::Result<T>>,
{
    let mut signals = Interrupts::new()?;
    let id = Arc::new(Mutex::new(None));
    let mut work = std::pin::pin!(work(recording(&id, progress.callback())).into_future());
    let done = tokio::select! {
        // the future stays pinned: nothing is lost when the other arm wins
        done = &mut work => done.map_err(Failure::from),
        // cancel-safe
        signal = signals.end() => {
            progress.clear();
            let known = id.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match known {
                // Before there is an operation, what goes on is an upload: it ends with us.
                None => Err(Failure::Interrupted { signal }),
                Some(id) => give_up(client, &id, signal, &mut signals, work).await,
            }
        }
    };
    progress.clear();
    done
}

/// Tells `next`, and keeps the operation's id.
fn recording(
    id: &Arc<Mutex<Option<String>>>,
    mut next: impl FnMut(&types::Operation) + Send + 'static,
) -> Callback {
    let id = Arc::clone(id);
    Box::new(move |operation| {
        id.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_with(|| operation.id.clone());
        next(operation);
    })
}

async fn give_up<T>(
    client: &Client,
    id: &str,
    signal: i32,
    signals: &mut Interrupts,
    work: impl Future<Output = banger_sdk::Result<T>>,
) -> Result<T, Failure> {
    eprintln!("banger: cancelling; once more leaves it to itself");
    let cancelled = async {
        client.operations().cancel(id).await?;
        work.await
    };
    tokio::select! {
        // dropped when it loses: then the work is left to itself
        ended = cancelled => match ended {
            // It had ended before it could be cancelled.
            Ok(done) => Ok(done),
            Err(error) if error.reason() == "OPERATION_CANCELLED" => Err(Failure::Interrupted { signal }),
            Err(error) => Err(error.into()),
        },
        // cancel-safe
        _ = signals.end() => Err(Failure::LeftRunning { operation: id.to_owned() }),
    }
}
