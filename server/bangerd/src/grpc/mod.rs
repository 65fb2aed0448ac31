//! The API over gRPC. Handlers parse, make one call of a service, convert and map the error; nothing else.
//!
//! ```text
//! request ─▶ admit, layer (log, panic) ─▶ handler ─▶ convert ─▶ banger-app ─▶ convert / status ─▶ answer
//! ```

pub mod admit;
mod build;
mod caller;
mod catalog;
mod convert;
mod export;
mod file;
mod host;
mod image;
mod kernel;
pub mod layer;
mod operation;
mod process;
mod request;
mod session;
mod status;
mod stream;
mod tunnel;
mod vm;
mod volume;
mod workspace;

use std::sync::Arc;

use banger_app::{App, AppError};
use tonic::Status;

pub use stream::Drain;

/// All handlers: one value serves every service of the API.
#[derive(Debug, Clone)]
pub struct Api {
    app: Arc<App>,
    once: Arc<request::Once>,
    drain: Drain,
}

impl Api {
    /// The handlers of `app`, whose streams end by `drain`.
    #[must_use]
    pub fn new(app: Arc<App>, drain: Drain) -> Self {
        Self {
            app,
            once: Arc::default(),
            drain,
        }
    }
}

/// The error of a service as the caller sees it.
fn refused(error: AppError) -> Status {
    status::of(&error)
}
