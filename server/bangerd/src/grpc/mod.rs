//! The API over gRPC. Handlers parse, make one call of a service, convert and map the error; nothing else.
//!
//! ```text
//! request ─▶ admit, layer (log, panic) ─▶ access ─▶ intake ─▶ caller ─▶ handler ─▶ convert ─▶ banger-app
//! ```

pub mod access;
pub mod admit;
mod build;
mod caller;
mod catalog;
mod convert;
mod counted;
mod export;
mod file;
mod host;
mod image;
pub mod intake;
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
use banger_core::Identity;
use tonic::Status;

pub use caller::PerCaller;
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

impl Api {
    /// The handlers for `caller`, who finds what it may.
    #[must_use]
    pub fn seen_by(&self, caller: &Identity) -> Self {
        Self {
            app: Arc::new(self.app.seen_by(caller)),
            ..self.clone()
        }
    }
}

/// The error of a service as the caller sees it.
fn refused(error: AppError) -> Status {
    status::of(&error)
}
