//! The calls that carry files: threads that block on the disk, and the streams between them and the host.

use std::sync::{Arc, PoisonError};

use banger_proto::guest::v1::put_tree_request::Message;
use banger_proto::guest::v1::tree_piece::Piece;
use banger_proto::guest::v1::{self as proto, PutTreeResponse, PutTreeStart, TreePiece};
use bytes::Bytes;
use rustix::fd::AsFd;
use tokio::sync::{mpsc, oneshot};
use tonic::{Status, Streaming};

use crate::agent::Agent;
use crate::beat::beating;
use crate::boot::mounted;
use crate::file::{Lasting, as_user, stream_as_user};
use crate::identity;
use crate::refusal::{Refusal, describe};
use crate::service::Events;
use crate::sys::{Writes, set_writes};
use crate::tree::beneath::TrustedLinks;
use crate::tree::put::{Owners, Putter};
use crate::tree::walk::Holes;
use crate::tree::{Root, changes as tree_changes, walk};

/// Pieces between a disk and the channel: a megabyte at most.
const PIECES_AHEAD: usize = 4;

/// Lays the files that sessions see over the image's, in guests that keep them apart.
pub(crate) fn lend(agent: &Agent) {
    if let Some(lent) = &mut *agent.lent.lock().unwrap_or_else(PoisonError::into_inner) {
        lent.lend();
    }
}

/// The disk as its image and its steps have it.
fn take_back(agent: &Agent) {
    if let Some(lent) = &mut *agent.lent.lock().unwrap_or_else(PoisonError::into_inner) {
        lent.take_back();
    }
}

/// Runs `work` where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    agent: &Arc<Agent>,
    work: impl FnOnce(&Agent) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    agent.ready().await?;
    let agent = Arc::clone(agent);
    tokio::task::spawn_blocking(move || {
        take_back(&agent);
        work(&agent)
    })
    .await
    .unwrap_or_else(|_| Err(Refusal::invalid("the agent's thread panicked")))
}

pub(crate) async fn set_identity(
    agent: &Arc<Agent>,
    request: proto::SetIdentityRequest,
) -> Result<(), Refusal> {
    blocking(agent, move |agent| identity::set(&agent.root, &request)).await
}

pub(crate) async fn list(
    agent: &Arc<Agent>,
    path: Bytes,
) -> Result<proto::ListDirectoryResponse, Refusal> {
    blocking(agent, move |agent| {
        let (names, kind) = walk::list_directory(&Root::open(&agent.root)?, &path)?;
        Ok(proto::ListDirectoryResponse {
            names: names.into_iter().map(Bytes::from).collect(),
            kind: kind.into(),
        })
    })
    .await
}

pub(crate) async fn freeze(agent: &Arc<Agent>, frozen: bool) -> Result<(), Refusal> {
    blocking(agent, move |_| {
        let mounted = mounted().ok_or_else(|| Refusal::invalid("there is no disk"))?;
        let writes = if frozen {
            Writes::Hold
        } else {
            Writes::Release
        };
        set_writes(mounted.upper.as_fd(), writes)
            .map_err(|error| Refusal::setup("holding the disk", describe(&error)))
    })
    .await
}

pub(crate) async fn put(
    agent: &Arc<Agent>,
    mut incoming: Streaming<proto::PutTreeRequest>,
) -> Result<PutTreeResponse, Status> {
    let first = incoming.message().await?.and_then(|first| first.message);
    let Some(Message::Start(start)) = first else {
        return Err(Refusal::invalid("the first message is not `start`").into());
    };
    let (sender, pieces) = mpsc::channel::<Piece>(PIECES_AHEAD);
    let (done, is_done) = tokio::sync::oneshot::channel();
    let work = putting(agent, start, pieces, is_done);
    let feed = async {
        while let Some(request) = incoming.message().await? {
            let Some(Message::Piece(TreePiece { piece: Some(piece) })) = request.message else {
                return Err(Refusal::invalid("a message is not a piece").into());
            };
            if sender.send(piece).await.is_err() {
                return Ok(()); // The work has failed and says why.
            }
        }
        // Whoever waits for it has gone only if the work has failed.
        let _ = done.send(());
        drop(sender);
        Ok::<(), Status>(())
    };
    let (fed, worked) = tokio::join!(feed, work);
    let worked = worked?;
    fed.map(|()| worked)
}

/// Puts what comes, with the rights that are asked for.
async fn putting(
    agent: &Arc<Agent>,
    mut start: PutTreeStart,
    pieces: mpsc::Receiver<Piece>,
    is_done: oneshot::Receiver<()>,
) -> Result<PutTreeResponse, Refusal> {
    let Some(user) = start.user.take() else {
        return blocking(agent, move |agent| {
            let root = Root::open(&agent.root)?;
            let putter = Putter::open(root, &start, Owners::Entries, TrustedLinks::All)?;
            take(putter, pieces, is_done)
        })
        .await;
    };
    as_user(agent, user.name, move |here| {
        start.path = [&b"/"[..], &here.inside(&start.path)?].concat().into();
        (start.uid, start.gid) = (here.identity.uid, here.identity.gid);
        let owners = match user.keep_owners {
            true => Owners::Entries,
            false => Owners::One,
        };
        let root = here.root.try_clone()?;
        let links = TrustedLinks::Of(here.identity.uid);
        take(Putter::open(root, &start, owners, links)?, pieces, is_done)
    })
    .await
}

fn take(
    mut putter: Putter,
    mut pieces: mpsc::Receiver<Piece>,
    is_done: oneshot::Receiver<()>,
) -> Result<PutTreeResponse, Refusal> {
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Entry(entry) => putter.entry(entry)?,
            Piece::Data(data) => putter.data(&data)?,
            Piece::Omissions(_) => return Err(Refusal::invalid("what comes lacks something")),
        }
    }
    // A stream that broke off is no end.
    match is_done.blocking_recv() {
        Ok(()) => putter.finish(),
        Err(_) => Err(Refusal::invalid("the stream of entries was cut short")),
    }
}

pub(crate) async fn get(
    agent: &Arc<Agent>,
    request: proto::GetTreeRequest,
) -> Result<Events<TreePiece>, Refusal> {
    let (path, tells) = (request.path, request.tell_omissions);
    let walk = move |root: &Root, path: &[u8], holes, deliver: walk::Deliver<'_>| {
        let omissions = walk::get_tree(root, path, holes, &mut *deliver)?;
        if tells && omissions.count > 0 {
            deliver(TreePiece {
                piece: Some(Piece::Omissions(omissions)),
            });
        }
        Ok(())
    };
    let Some(user) = request.user else {
        agent.ready().await?;
        return Ok(pieces(agent, move |agent, deliver| {
            walk(&Root::open(&agent.root)?, &path, Holes::Filled, deliver)
        }));
    };
    stream_as_user(agent, user, Lasting::Call, move |here, deliver| {
        let path = [&b"/"[..], &here.inside(&path)?].concat();
        walk(&here.root, &path, Holes::Told, deliver)
    })
    .await
}

pub(crate) async fn changes(
    agent: &Arc<Agent>,
    everything: bool,
) -> Result<Events<TreePiece>, Refusal> {
    agent.ready().await?;
    Ok(pieces(agent, move |agent, deliver| {
        if everything {
            let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
            let root = rustix::fs::open(&agent.root, flags, rustix::fs::Mode::empty())
                .map_err(|error| Refusal::setup("opening the root", error))?;
            return tree_changes::everything(&root, deliver);
        }
        let mounted = mounted().ok_or_else(|| Refusal::invalid("there is no disk"))?;
        tree_changes::changes(&mounted.written, &mounted.base, deliver)
    }))
}

/// What `walk` delivers, and at the end its failure; it ends when the host has gone.
fn pieces(
    agent: &Arc<Agent>,
    walk: impl FnOnce(&Agent, walk::Deliver<'_>) -> Result<(), Refusal> + Send + 'static,
) -> Events<TreePiece> {
    let (sender, receiver) = mpsc::channel::<Result<TreePiece, Status>>(PIECES_AHEAD);
    let owned = Arc::clone(agent);
    agent.tasks.spawn_blocking(move || {
        take_back(&owned);
        let mut deliver = |piece| sender.blocking_send(Ok(piece)).is_ok();
        if let Err(refusal) = walk(&owned, &mut deliver) {
            // Nobody waits for it where the host has gone.
            let _ = sender.blocking_send(Err(refusal.into()));
        }
    });
    beating(receiver)
}
