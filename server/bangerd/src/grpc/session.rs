//! `SessionService`.

use banger_core::SessionId;
use banger_core::session::AttachOptions;
use banger_proto::v1;
use banger_proto::v1::session_service_server::SessionService;
use tonic::{Request, Response, Status, Streaming};

use super::convert::{field, page, session};
use super::process;
use super::request::{self, RequestError};
use super::stream::{self, Answers};
use super::{Api, refused};

#[tonic::async_trait]
impl SessionService for Api {
    async fn start_session(
        &self,
        request: Request<v1::StartSessionRequest>,
    ) -> Result<Response<v1::StartSessionResponse>, Status> {
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let key = request::key("banger.v1.SessionService/StartSession", &id, &request)?;
        let key = key.map(|key| key.of(self.app.caller()));
        let named = field::named("vm", &request.vm)?.to_owned();
        let spec = session::parse_spec("spec", request.spec)?;
        let (app, once) = (self.app.clone(), self.once.clone());
        // The service itself keeps the session's id for the key, before anything runs.
        let work = async move {
            let start = app.sessions.start(&named, spec, key.as_ref());
            let started = once.in_turn(key.as_ref(), start).await?;
            Ok(v1::StartSessionResponse {
                session: Some(session::session(&started)),
            })
        };
        self.once.answer(&self.app, None, work).await
    }

    async fn get_session(
        &self,
        request: Request<v1::GetSessionRequest>,
    ) -> Result<Response<v1::GetSessionResponse>, Status> {
        let id: SessionId = field::id("session", &request.get_ref().session)?;
        let found = self.app.sessions.get(id).await.map_err(refused)?;
        Ok(Response::new(v1::GetSessionResponse {
            session: Some(session::session(&found)),
        }))
    }

    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsResponse>, Status> {
        let request = request.into_inner();
        let wanted = page::request(request.page_size, &request.page_token)?;
        let found = self
            .app
            .sessions
            .list(field::named("vm", &request.vm)?)
            .await
            .map_err(refused)?;
        // Oldest first: the page begins after the last id of the one before.
        let after = |id: &str| wanted.before.as_deref().is_none_or(|last| id > last);
        let mut sessions: Vec<v1::Session> = found
            .iter()
            .map(session::session)
            .filter(|item| after(&item.id))
            .collect();
        let size = usize::try_from(wanted.size).unwrap_or(usize::MAX);
        let has_more = sessions.len() > size;
        sessions.truncate(size);
        let next_page_token = page::next(&sessions, has_more, |item| item.id.clone());
        Ok(Response::new(v1::ListSessionsResponse {
            sessions,
            next_page_token,
        }))
    }

    type AttachSessionStream = Answers<v1::AttachSessionResponse>;

    async fn attach_session(
        &self,
        request: Request<Streaming<v1::AttachSessionRequest>>,
    ) -> Result<Response<Self::AttachSessionStream>, Status> {
        use v1::attach_session_request::Message;
        let mut messages = request.into_inner();
        let Some(Message::Start(start)) = stream::first(&mut messages).await?.message else {
            return Err(RequestError::invalid("start", "does not come first").into());
        };
        let id: SessionId = field::id("start.session", &start.session)?;
        let options = AttachOptions {
            writing: session::writing(start.writing)?,
            writer: session::writer(&start.writer)?,
            ..session::options(start.options)?
        };
        let (input, faults) = process::input(messages, process::attach_input);
        let events = self
            .app
            .sessions
            .attach(id, options, input)
            .await
            .map_err(refused)?;
        Ok(Response::new(process::attached(
            events,
            faults,
            &self.drain,
        )))
    }

    type ReadSessionLogStream = Answers<v1::ReadSessionLogResponse>;

    async fn read_session_log(
        &self,
        request: Request<v1::ReadSessionLogRequest>,
    ) -> Result<Response<Self::ReadSessionLogStream>, Status> {
        let request = request.into_inner();
        let id: SessionId = field::id("session", &request.session)?;
        let options = session::log_options(request.options)?;
        let events = self
            .app
            .sessions
            .read_log(id, options, request.follow)
            .await
            .map_err(refused)?;
        Ok(Response::new(process::log(events, &self.drain)))
    }

    async fn signal_session(
        &self,
        request: Request<v1::SignalSessionRequest>,
    ) -> Result<Response<v1::SignalSessionResponse>, Status> {
        let request = request.into_inner();
        let id: SessionId = field::id("session", &request.session)?;
        let signal = session::signal("signal", request.signal)?;
        let target = session::signal_target(request.target)?;
        self.app
            .sessions
            .signal(id, signal, target)
            .await
            .map_err(refused)?;
        Ok(Response::new(v1::SignalSessionResponse {}))
    }

    async fn wait_session(
        &self,
        request: Request<v1::WaitSessionRequest>,
    ) -> Result<Response<v1::WaitSessionResponse>, Status> {
        let id: SessionId = field::id("session", &request.get_ref().session)?;
        let exit = tokio::select! {
            // cancel-safe: waiting holds no state
            exit = self.app.sessions.wait(id) => exit.map_err(refused)?,
            // cancel-safe: holds no state
            () = self.drain.begun.cancelled() => return Err(RequestError::Draining.into()),
        };
        Ok(Response::new(v1::WaitSessionResponse {
            exit: Some(session::exit(exit)),
        }))
    }

    async fn delete_session(
        &self,
        request: Request<v1::DeleteSessionRequest>,
    ) -> Result<Response<v1::DeleteSessionResponse>, Status> {
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let key = request::key("banger.v1.SessionService/DeleteSession", &id, &request)?;
        let session: SessionId = field::id("session", &request.session)?;
        let (app, kept) = (self.app.clone(), key.clone());
        let work = async move {
            app.sessions
                .delete_once(session, kept.as_ref())
                .await
                .map(|()| v1::DeleteSessionResponse {})
        };
        self.once.answer(&self.app, key, work).await
    }

    type ExecStream = Answers<v1::ExecResponse>;

    async fn exec(
        &self,
        request: Request<Streaming<v1::ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        use v1::exec_request::Message;
        let mut messages = request.into_inner();
        let Some(Message::Start(start)) = stream::first(&mut messages).await?.message else {
            return Err(RequestError::invalid("start", "does not come first").into());
        };
        let spec = session::parse_spec("start.spec", start.spec)?;
        let (signals, signalled) = process::signals();
        let (input, faults) = process::input(messages, move |message| {
            process::exec_input(message, &signals)
        });
        let exec = self
            .app
            .sessions
            .exec(field::named("start.vm", &start.vm)?, spec, input)
            .await
            .map_err(refused)?;
        Ok(Response::new(process::executed(
            exec,
            faults,
            signalled,
            &self.drain,
        )))
    }
}
