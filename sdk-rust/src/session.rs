//! Sessions: start, exec, attach, log, signal, wait, delete.

use banger_proto::v1;
use v1::session_service_client::SessionServiceClient;

use crate::client::Client;
use crate::error::{CodeRan, Error, Result};
use crate::request::Request;
use crate::stream::{Pages, pages};

mod command;
mod input;
mod log;
mod outbox;
mod outcome;
mod process;
mod reader;

pub use command::Command;
pub use input::Input;
pub use log::Log;
pub use outcome::Outcome;
pub use process::{Attach, Collected, Process};
pub use reader::{Event, ReadFrom};

pub use v1::resource_limit::Resource;
pub use v1::signal_session_request::Target as SignalTarget;

/// Asked for per page; the daemon's default.
const PAGE_SIZE: i32 = 100;
/// The largest answer: a session with a command and an environment of 6 MiB together, with room.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Sessions.
#[derive(Debug, Clone)]
pub struct Sessions {
    client: Client,
}

impl Sessions {
    pub(crate) const fn new(client: Client) -> Self {
        Self { client }
    }

    fn rpc(&self) -> SessionServiceClient<tonic::transport::Channel> {
        SessionServiceClient::new(self.client.channel()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Starts a session and leaves it running.
    pub fn start(&self, vm: impl Into<String>, command: Command) -> Request<v1::Session> {
        let (this, vm, spec) = (self.clone(), vm.into(), Some(command.into_spec()));
        Request::new(|request_id| async move {
            const CALL: &str = "StartSession";
            let request = v1::StartSessionRequest {
                vm,
                spec,
                request_id,
            };
            let call = || async { this.rpc().start_session(request.clone()).await };
            let answer = this.client.repeat(CALL, call).await?;
            answer.session.ok_or(Error::Protocol {
                during: CALL,
                detail: "no session",
            })
        })
    }

    /// Starts a process and attaches to it. Dropping the [`Process`] kills it; its session is removed
    /// when it ends.
    ///
    /// # Errors
    /// When it cannot be started; [`Error::code_ran`] tells whether it ran nevertheless.
    pub async fn exec(&self, vm: impl Into<String>, command: Command) -> Result<Process> {
        Process::exec(self.clone(), vm.into(), command).await
    }

    /// Attaches to a session. Dropping the [`Process`] detaches and leaves it running.
    pub fn attach(&self, session: impl Into<String>) -> Attach {
        Attach::new(self.clone(), session.into())
    }

    /// A session's log.
    pub fn log(&self, session: impl Into<String>) -> Log {
        Log::new(self.clone(), session.into())
    }

    /// The session with this id.
    ///
    /// # Errors
    /// When there is none, or the daemon cannot be asked.
    pub async fn get(&self, session: impl Into<String>) -> Result<v1::Session> {
        const CALL: &str = "GetSession";
        let request = v1::GetSessionRequest {
            session: session.into(),
        };
        let call = || async { self.rpc().get_session(request.clone()).await };
        let answer = self.client.repeat(CALL, call).await?;
        answer.session.ok_or(Error::Protocol {
            during: CALL,
            detail: "no session",
        })
    }

    /// A VM's sessions, oldest first.
    pub fn list(&self, vm: impl Into<String>) -> Pages<v1::Session> {
        let (this, vm) = (self.clone(), vm.into());
        pages(move |page_token| {
            let (this, vm) = (this.clone(), vm.clone());
            async move {
                let request = v1::ListSessionsRequest {
                    vm,
                    page_size: PAGE_SIZE,
                    page_token,
                };
                let call = || async { this.rpc().list_sessions(request.clone()).await };
                let page = this.client.repeat("ListSessions", call).await?;
                Ok((page.sessions, page.next_page_token))
            }
        })
    }

    /// Sends a signal, 1 to 64. Not repeated when the connection breaks: it may have been sent.
    ///
    /// # Errors
    /// When the session has ended, or the daemon cannot be asked.
    pub async fn signal(
        &self,
        session: impl Into<String>,
        signal: i32,
        target: SignalTarget,
    ) -> Result<()> {
        let session = session.into();
        let request = v1::SignalSessionRequest {
            session,
            signal,
            target: target.into(),
        };
        match self.rpc().signal_session(request).await {
            Ok(_) => Ok(()),
            Err(status) => Err(Error::from_status(status, "SignalSession")),
        }
    }

    /// Waits for a session's end, as long as it takes.
    ///
    /// # Errors
    /// When there is no such session, or the daemon cannot be asked.
    pub async fn wait(&self, session: impl Into<String>) -> Result<v1::Exit> {
        const CALL: &str = "WaitSession";
        let request = v1::WaitSessionRequest {
            session: session.into(),
        };
        let call = || async { self.rpc().wait_session(request.clone()).await };
        let answer = self
            .client
            .repeat(CALL, call)
            .await
            .map_err(|error| error.with_code_ran(CodeRan::Yes))?;
        answer.exit.ok_or(Error::Protocol {
            during: CALL,
            detail: "no exit",
        })
    }

    /// Kills what is left of a session and removes it with its log.
    pub fn delete(&self, session: impl Into<String>) -> Request<()> {
        let (this, session) = (self.clone(), session.into());
        Request::new(|request_id| async move {
            let request = v1::DeleteSessionRequest {
                session,
                request_id,
            };
            let call = || async { this.rpc().delete_session(request.clone()).await };
            this.client.repeat("DeleteSession", call).await.map(drop)
        })
    }
}
