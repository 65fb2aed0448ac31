//! Open files and directories. A file that is read or written in order is one stream to the guest; where a client jumps,
//! the stream is ended and another begun.

use std::sync::Arc;

use banger_app::file::Told;
use banger_app::{App, AppError};
use banger_core::file::{
    FileAttributes, FileInfo, FileListing, FilePlace, FileRange, FileWrite, WriteMode,
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::wire::{Code, Refused};
use super::{Remote, refused};
use crate::limits::SFTP_LISTED;

/// Pieces of a file that wait for the guest.
const PIECES_WAITING: usize = 2;

/// What a client has open.
pub(super) enum Open {
    File(Box<OpenFile>),
    Directory(Box<OpenDirectory>),
}

/// An open file.
pub(super) struct OpenFile {
    pub(super) place: FilePlace,
    pub(super) can_read: bool,
    pub(super) can_write: bool,
    pub(super) appends: bool,
    reading: Option<Reading>,
    writing: Option<Writing>,
    /// Why an earlier write failed, until it is told.
    fault: Option<Refused>,
}

/// A file's content from `offset` on.
struct Reading {
    offset: u64,
    content: Told<Bytes>,
    rest: Bytes,
}

/// A file being written up to `offset`. Dropped before its end, what is on its way is given up.
struct Writing {
    offset: u64,
    pieces: mpsc::Sender<Bytes>,
    written: AbortOnDropHandle<Result<FileInfo, AppError>>,
}

impl OpenFile {
    pub(super) fn new(place: FilePlace, can_read: bool, can_write: bool, appends: bool) -> Self {
        Self {
            place,
            can_read,
            can_write,
            appends,
            reading: None,
            writing: None,
            fault: None,
        }
    }

    /// At most `length` bytes from `offset` on; none at the end.
    pub(super) async fn read(
        &mut self,
        remote: &Remote,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, Refused> {
        self.written().await?;
        let mut reading = match self.reading.take() {
            Some(reading) if reading.offset == offset => reading,
            _ => Reading::begin(remote, &self.place, offset).await?,
        };
        let read = reading.take(length).await?;
        // At the end there is nothing to go on with; a file that grows has more at the next look.
        if read.len() == length {
            self.reading = Some(reading);
        }
        Ok(read)
    }

    /// Writes at `offset`, or at the end of a file that is appended to.
    pub(super) async fn write(
        &mut self,
        remote: &Remote,
        offset: u64,
        data: &[u8],
    ) -> Result<(), Refused> {
        self.reading = None;
        let in_order = |writing: &Writing| self.appends || writing.offset == offset;
        if !self.writing.as_ref().is_some_and(in_order) {
            self.written().await?;
            let mode = match self.appends {
                true => WriteMode::Append,
                false => WriteMode::At {
                    offset,
                    truncate: false,
                },
            };
            self.writing = Some(Writing::begin(remote, &self.place, mode, offset));
        }
        let Some(writing) = &mut self.writing else {
            unreachable!("it was begun");
        };
        writing.offset = offset.saturating_add(data.len() as u64);
        if writing
            .pieces
            .send(Bytes::copy_from_slice(data))
            .await
            .is_err()
        {
            // The guest has refused: why, is told now.
            return self.written().await;
        }
        Ok(())
    }

    /// Waits until what was written is in the guest's file; that it is not, is told by the next that asks for it.
    pub(super) async fn flush(&mut self) {
        if let Err(fault) = self.written().await {
            self.fault = Some(fault);
        }
    }

    /// Waits until what was written is in the guest's file.
    pub(super) async fn written(&mut self) -> Result<(), Refused> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let Some(Writing {
            pieces, written, ..
        }) = self.writing.take()
        else {
            return Ok(());
        };
        drop(pieces);
        match written.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(refused(&error)),
            Err(_) => Err(Refused::new(Code::Failure, "the write was interrupted")),
        }
    }
}

impl Reading {
    async fn begin(remote: &Remote, place: &FilePlace, offset: u64) -> Result<Self, Refused> {
        let beyond = |_| Refused::new(Code::Failure, "no file is as long");
        let range = FileRange {
            offset: i64::try_from(offset).map_err(beyond)?,
            length: None,
        };
        let read = remote.app.files.read(&remote.vm, place, range).await;
        let (_, content) = read.map_err(|error| refused(&error))?;
        Ok(Self {
            offset,
            content,
            rest: Bytes::new(),
        })
    }

    async fn take(&mut self, length: usize) -> Result<Bytes, Refused> {
        let mut taken = BytesMut::new();
        while taken.len() < length {
            if self.rest.is_empty() {
                match self.content.next().await {
                    Some(piece) => self.rest = piece.map_err(|error| refused(&error))?,
                    None => break,
                }
            }
            let more = self.rest.len().min(length - taken.len());
            taken.extend_from_slice(&self.rest.split_to(more));
        }
        self.offset += taken.len() as u64;
        Ok(taken.freeze())
    }
}

impl Writing {
    fn begin(remote: &Remote, place: &FilePlace, mode: WriteMode, offset: u64) -> Self {
        let (pieces, waiting) = mpsc::channel(PIECES_WAITING);
        let source = stream::unfold(waiting, async |mut waiting: mpsc::Receiver<Bytes>| {
            let piece = waiting.recv().await?;
            Some((piece, waiting))
        });
        let write = write_of(mode, None);
        let (app, vm, place) = (Arc::clone(&remote.app), remote.vm.clone(), place.clone());
        let writing = async move { app.files.write(&vm, &place, &write, source.boxed()).await };
        Self {
            offset,
            pieces,
            written: AbortOnDropHandle::new(remote.app.tasks().spawn(writing)),
        }
    }
}

/// Writes nothing at `mode`'s place, which makes, empties or shortens a file, or shows that it may be written.
pub(super) async fn touch(
    app: &App,
    vm: &str,
    place: &FilePlace,
    mode: WriteMode,
    permissions: Option<u16>,
) -> Result<(), Refused> {
    let write = write_of(mode, permissions);
    let touched = app
        .files
        .write(vm, place, &write, stream::empty().boxed())
        .await;
    touched.map(drop).map_err(|error| refused(&error))
}

fn write_of(mode: WriteMode, permissions: Option<u16>) -> FileWrite {
    FileWrite {
        mode,
        attributes: FileAttributes {
            permissions,
            ..FileAttributes::default()
        },
        make_parents: false,
    }
}

/// An open directory.
pub(super) struct OpenDirectory {
    place: FilePlace,
    listed: std::vec::IntoIter<FileInfo>,
    after: Vec<u8>,
    has_more: bool,
}

impl OpenDirectory {
    pub(super) async fn begin(remote: &Remote, place: FilePlace) -> Result<Self, Refused> {
        let mut directory = Self {
            place,
            listed: Vec::new().into_iter(),
            after: Vec::new(),
            has_more: true,
        };
        directory.list(remote).await?;
        Ok(directory)
    }

    /// At most `count` of the names that come next; none at the end.
    pub(super) async fn next(
        &mut self,
        remote: &Remote,
        count: usize,
    ) -> Result<Vec<FileInfo>, Refused> {
        if self.listed.len() == 0 && self.has_more {
            self.list(remote).await?;
        }
        Ok(self.listed.by_ref().take(count).collect())
    }

    async fn list(&mut self, remote: &Remote) -> Result<(), Refused> {
        let listing = FileListing {
            depth: 1,
            limit: SFTP_LISTED,
            after: std::mem::take(&mut self.after),
        };
        let files = &remote.app.files;
        let listed = files.list(&remote.vm, &self.place, &listing).await;
        let (listed, has_more) = listed.map_err(|error| refused(&error))?;
        // A guest that has more and tells of nothing has nothing.
        self.has_more = has_more && !listed.is_empty();
        self.after = listed
            .last()
            .map(|info| info.path.clone())
            .unwrap_or_default();
        self.listed = listed.into_iter();
        Ok(())
    }
}
