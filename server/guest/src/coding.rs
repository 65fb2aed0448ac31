//! Contents of workspaces in fewer bytes, on the side of the daemon's callers: the guest sends and gets them as they are.

use std::sync::Arc;

use banger_core::workspace::Part;
use banger_workspace::wire::Fault;
use banger_workspace::wire::encoding::{Encoder, decode, needs_decoding};
use tokio::sync::Semaphore;

/// Encodes and decodes beside the threads that serve, on no more threads than there are processors. All guests of a
/// connector share one; of each stream it has one piece at a time.
#[derive(Debug, Clone)]
pub(crate) struct Coding(Arc<Semaphore>);

impl Default for Coding {
    fn default() -> Self {
        let processors = std::thread::available_parallelism();
        Self(Arc::new(Semaphore::new(processors.map_or(1, usize::from))))
    }
}

impl Coding {
    /// The part as it is.
    ///
    /// # Errors
    /// If it is not what its encoding says, or more than a piece may have.
    pub(crate) async fn decoded(&self, mut part: Part) -> Result<Part, Fault> {
        if !needs_decoding(&part) {
            return Ok(part);
        }
        let decoding = self.run(move || decode(&mut part).map(|()| part));
        decoding.await.unwrap_or(Err(Fault::Cut))
    }

    /// The part in fewer bytes, if that is wanted and possible; none where the daemon ends meanwhile.
    pub(crate) async fn encoded(
        &self,
        encoder: &mut Option<Encoder>,
        mut part: Part,
    ) -> Option<Part> {
        let Some(mut taken) = encoder.take_if(|encoder| encoder.wants(&part)) else {
            return Some(part);
        };
        let encoding = self.run(move || {
            taken.encode(&mut part);
            (taken, part)
        });
        let (taken, part) = encoding.await?;
        *encoder = Some(taken);
        Some(part)
    }

    /// Does `work` on a thread of its own; none where the daemon ends meanwhile.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let turn = Arc::clone(&self.0).acquire_owned().await.ok()?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        done.await.ok()
    }
}
