//! The `sftp` subsystem, which `sftp`, `scp` and file managers use: SFTP version 3 over the files of the VM, with the
//! rights of the user who has logged in.
//!
//! Requests are answered one after the other, those about paths after all that was written before them. Errors of a write are told by a later one, or at the latest when the file
//! is closed, since the guest is not waited for.

mod attributes;
mod handle;
mod path;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use banger_app::{App, AppError};
use banger_core::Explain as _;
use banger_core::file::{FileInfo, FileKind, FilePlace, Links, Removal, Replacing, WriteMode};
use bytes::{Buf as _, Bytes, BytesMut};
use russh::ChannelWriteHalf;
use russh::server::Msg;
use tokio_util::sync::CancellationToken;

use crate::inbox::Source;
use crate::limits::{SFTP_DATA_MAX, SFTP_HANDLES_MAX, SFTP_NAMES, SFTP_PACKET_MAX};
use crate::login::Login;
use crate::process::{FAILED, STDERR};
use attributes::Wanted;
use handle::{Open, OpenDirectory, OpenFile};
use wire::{Code, Reader, Refused, Writer, kind};

/// How a file is opened.
mod flag {
    pub(super) const READ: u32 = 1;
    pub(super) const WRITE: u32 = 2;
    pub(super) const APPEND: u32 = 4;
    pub(super) const CREATE: u32 = 8;
    pub(super) const TRUNCATE: u32 = 16;
    pub(super) const EXCLUSIVE: u32 = 32;
}

/// Permission bits of new files and directories that the client's own umask does not know of.
const UMASK: u16 = 0o022;
/// Extensions of OpenSSH that are served, with their versions.
const EXTENSIONS: [(&str, &str); 4] = [
    ("posix-rename@openssh.com", "1"),
    ("limits@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
];

/// Serves one channel to its end, or until `closed`. What was being written then is given up.
pub(crate) async fn run(
    app: Arc<App>,
    vm: String,
    login: Arc<Login>,
    source: Source,
    channel: ChannelWriteHalf<Msg>,
    closed: CancellationToken,
) {
    let mut server = Server {
        remote: Remote { app, vm, login },
        open: BTreeMap::new(),
        next: 0,
    };
    let served = tokio::select! {
        // cancel-safe: dropped only where nobody hears what is lost
        served = server.serve(source, &channel) => served,
        // cancel-safe: holds no state
        () = closed.cancelled() => return,
    };
    // That nobody hears the last words is no error.
    let code = match served {
        Ok(()) => 0,
        Err(refused) => {
            let text = format!("banger: sftp: {}\n", refused.text).into_bytes();
            let _ = channel.extended_data_bytes(STDERR, text).await;
            FAILED
        }
    };
    let _ = channel.exit_status(code).await;
    let _ = channel.eof().await;
    let _ = channel.close().await;
}

/// Whose files are served.
pub(super) struct Remote {
    app: Arc<App>,
    /// The VM's id.
    vm: String,
    login: Arc<Login>,
}

struct Server {
    remote: Remote,
    open: BTreeMap<u32, Open>,
    /// The next handle.
    next: u32,
}

/// What was asked for is done, and there is nothing else to say.
fn done(id: u32) -> Bytes {
    wire::status(id, &Refused::new(Code::Ok, "done"))
}

/// Why the guest, or banger, did not do it.
fn refused(error: &AppError) -> Refused {
    let code = match error.reason() {
        "FILE_NOT_FOUND" => Code::NoSuchFile,
        "FILE_ACCESS_DENIED" | "FILE_READ_ONLY" => Code::PermissionDenied,
        "FILE_UNSUPPORTED" => Code::Unsupported,
        _ => Code::Failure,
    };
    Refused::new(code, banger_core::chain(error))
}

impl Remote {
    /// Relative paths are the guest's to resolve, from the user's home; but it takes no `..`, which goes by the text then,
    /// as the client has been told by REALPATH.
    fn place(&self, path: &[u8]) -> FilePlace {
        let goes_up = path.split(|&byte| byte == b'/').any(|name| name == b"..");
        let path = match path {
            b"" => b".".to_vec(),
            path if goes_up => path::absolute(path, &self.login.home),
            path => path.to_vec(),
        };
        FilePlace {
            user: self.login.user.clone(),
            path,
        }
    }

    async fn stat(&self, place: &FilePlace, links: Links) -> Result<FileInfo, Refused> {
        let found = self.app.files.stat(&self.vm, place, links).await;
        found.map_err(|error| refused(&error))
    }

    /// Removes what is of this kind, or of any other than it.
    async fn remove(&self, path: &[u8], is_directory: bool) -> Result<(), Refused> {
        let place = self.place(path);
        let found = self.stat(&place, Links::Keep).await?;
        if (found.kind == FileKind::Directory) != is_directory {
            let text = match is_directory {
                true => "is no directory",
                false => "is a directory",
            };
            return Err(Refused::new(Code::Failure, text));
        }
        let removal = Removal {
            recursive: false,
            allow_missing: false,
        };
        let removed = self.app.files.remove(&self.vm, &place, removal).await;
        removed.map(drop).map_err(|error| refused(&error))
    }

    async fn rename(&self, from: &[u8], to: &[u8], replacing: Replacing) -> Result<(), Refused> {
        let (from, to) = (self.place(from), self.place(to).path);
        let renamed = self.app.files.rename(&self.vm, &from, &to, replacing).await;
        renamed.map(drop).map_err(|error| refused(&error))
    }

    async fn set(&self, place: &FilePlace, links: Links, wanted: &Wanted) -> Result<(), Refused> {
        if let Some(size) = wanted.size {
            // Only a file that is there is made longer or shorter.
            self.stat(place, Links::Follow).await?;
            let mode = WriteMode::At {
                offset: size,
                truncate: true,
            };
            handle::touch(&self.app, &self.vm, place, mode, None).await?;
        }
        let Some(attributes) = wanted.attributes() else {
            return Ok(());
        };
        let files = &self.app.files;
        let set = files
            .set_attributes(&self.vm, place, links, &attributes)
            .await;
        set.map(drop).map_err(|error| refused(&error))
    }

    async fn open(&self, path: &[u8], flags: u32, wanted: &Wanted) -> Result<OpenFile, Refused> {
        let place = self.place(path);
        let has = |flag| flags & flag != 0;
        let mut file = OpenFile::new(
            place.clone(),
            has(flag::READ),
            has(flag::WRITE),
            has(flag::APPEND),
        );
        if !file.can_write {
            // Shows that it may be read, and is what comes next.
            file.read(self, 0, 0).await?;
            return Ok(file);
        }
        let mode = if has(flag::CREATE) && has(flag::EXCLUSIVE) {
            WriteMode::Create
        } else {
            WriteMode::At {
                offset: 0,
                truncate: has(flag::TRUNCATE),
            }
        };
        let found = match self.stat(&place, Links::Follow).await {
            Ok(_) => true,
            Err(refused) if refused.code == Code::NoSuchFile && has(flag::CREATE) => false,
            Err(refused) => return Err(refused),
        };
        let permissions = wanted.permissions.unwrap_or(0o666) & !UMASK;
        let permissions = (!found).then_some(permissions);
        handle::touch(&self.app, &self.vm, &place, mode, permissions).await?;
        Ok(file)
    }
}

impl Server {
    /// Reads packets and answers them. The error is one after which nothing can be understood.
    async fn serve(
        &mut self,
        mut source: Source,
        channel: &ChannelWriteHalf<Msg>,
    ) -> Result<(), Refused> {
        let mut heard = BytesMut::new();
        loop {
            while let Some(packet) = packet(&mut heard)? {
                let answer = self.answer(&packet).await?;
                if channel.data_bytes(answer).await.is_err() {
                    return Ok(());
                }
            }
            match source.next().await {
                Some(data) => heard.extend_from_slice(&data),
                None => return Ok(()),
            }
        }
    }

    async fn answer(&mut self, packet: &[u8]) -> Result<Bytes, Refused> {
        let mut reader = Reader(&packet[1..]);
        let id = reader.u32()?;
        if packet[0] == kind::INIT {
            // What came is the client's version, and the answer has the server's in the same place.
            let mut writer = Writer::new(kind::VERSION, wire::VERSION);
            for (name, version) in EXTENSIONS {
                writer.string(name.as_bytes()).string(version.as_bytes());
            }
            return Ok(writer.finish());
        }
        let answer = self.request(packet[0], id, &mut reader).await;
        Ok(answer.unwrap_or_else(|refused| wire::status(id, &refused)))
    }

    async fn request(
        &mut self,
        kind: u8,
        id: u32,
        reader: &mut Reader<'_>,
    ) -> Result<Bytes, Refused> {
        match kind {
            kind::OPEN => self.open(id, reader).await,
            kind::OPENDIR => {
                let place = self.remote.place(reader.string()?);
                self.has_room()?;
                let directory = OpenDirectory::begin(&self.remote, place).await?;
                Ok(self.keep(id, Open::Directory(Box::new(directory))))
            }
            kind::CLOSE => {
                let open = self.take(reader)?;
                if let Open::File(mut file) = open {
                    file.written().await?;
                }
                Ok(done(id))
            }
            kind::READ => self.read(id, reader).await,
            kind::WRITE => self.write(id, reader).await,
            kind::READDIR => self.read_directory(id, reader).await,
            kind::FSTAT => {
                let file = Self::file(&mut self.open, reader)?;
                file.written().await?;
                attrs(id, &self.remote.stat(&file.place, Links::Follow).await?)
            }
            kind::FSETSTAT => {
                let file = Self::file(&mut self.open, reader)?;
                let wanted = Wanted::read(reader)?;
                file.written().await?;
                self.remote.set(&file.place, Links::Follow, &wanted).await?;
                Ok(done(id))
            }
            kind::EXTENDED => {
                self.flush().await;
                self.extended(id, reader).await
            }
            kind::RENAME => {
                self.flush().await;
                let (from, to) = (reader.string()?, reader.string()?);
                self.rename(from, to, Replacing::Refused).await?;
                Ok(done(id))
            }
            kind => {
                self.flush().await;
                self.remote.request(kind, id, reader).await
            }
        }
    }

    async fn open(&mut self, id: u32, reader: &mut Reader<'_>) -> Result<Bytes, Refused> {
        let path = reader.string()?;
        let flags = reader.u32()?;
        let wanted = Wanted::read(reader)?;
        self.flush().await;
        // What is opened may be emptied by that.
        self.has_room()?;
        let file = self.remote.open(path, flags, &wanted).await?;
        Ok(self.keep(id, Open::File(Box::new(file))))
    }

    async fn read(&mut self, id: u32, reader: &mut Reader<'_>) -> Result<Bytes, Refused> {
        let file = Self::file(&mut self.open, reader)?;
        let (offset, length) = (reader.u64()?, reader.u32()?.min(SFTP_DATA_MAX));
        if !file.can_read {
            return Err(Refused::new(Code::PermissionDenied, "not open for reading"));
        }
        let length = usize::try_from(length).unwrap_or(0);
        let read = file.read(&self.remote, offset, length).await?;
        if read.is_empty() {
            return Err(Refused::new(Code::Eof, "end of file"));
        }
        Ok(Writer::new(kind::DATA, id).string(&read).finish())
    }

    async fn write(&mut self, id: u32, reader: &mut Reader<'_>) -> Result<Bytes, Refused> {
        let file = Self::file(&mut self.open, reader)?;
        let (offset, data) = (reader.u64()?, reader.string()?);
        if !file.can_write {
            return Err(Refused::new(Code::PermissionDenied, "not open for writing"));
        }
        file.write(&self.remote, offset, data).await?;
        Ok(done(id))
    }

    async fn read_directory(&mut self, id: u32, reader: &mut Reader<'_>) -> Result<Bytes, Refused> {
        let Some(Open::Directory(directory)) = self.open.get_mut(&handle(reader)?) else {
            return Err(Refused::new(Code::Failure, "no such handle"));
        };
        let names = directory.next(&self.remote, SFTP_NAMES).await?;
        if names.is_empty() {
            return Err(Refused::new(Code::Eof, "end of directory"));
        }
        let mut writer = Writer::new(kind::NAME, id);
        writer.u32(u32::try_from(names.len()).unwrap_or(0));
        for info in &names {
            writer.string(&info.path);
            writer.string(&attributes::long_name(info, &info.path));
            attributes::write(&mut writer, info);
        }
        Ok(writer.finish())
    }

    async fn extended(&mut self, id: u32, reader: &mut Reader<'_>) -> Result<Bytes, Refused> {
        match reader.string()? {
            b"posix-rename@openssh.com" => {
                let (from, to) = (reader.string()?, reader.string()?);
                self.rename(from, to, Replacing::Allowed).await?;
                Ok(done(id))
            }
            b"lsetstat@openssh.com" => {
                let place = self.remote.place(reader.string()?);
                let wanted = Wanted::read(reader)?;
                self.remote.set(&place, Links::Keep, &wanted).await?;
                Ok(done(id))
            }
            b"expand-path@openssh.com" => {
                let path = path::expanded(reader.string()?, &self.remote.login.home);
                Ok(name(id, &path))
            }
            b"limits@openssh.com" => {
                let handles = u64::try_from(SFTP_HANDLES_MAX).unwrap_or(0);
                Ok(Writer::new(kind::EXTENDED_REPLY, id)
                    .u64(SFTP_PACKET_MAX.into())
                    .u64(SFTP_DATA_MAX.into())
                    .u64(SFTP_DATA_MAX.into())
                    .u64(handles)
                    .finish())
            }
            _ => Err(Refused::new(Code::Unsupported, "is not supported")),
        }
    }

    /// What was written into open files is in the guest's, before a request that may be about one of them.
    async fn flush(&mut self) {
        for open in self.open.values_mut() {
            if let Open::File(file) = open {
                file.flush().await;
            }
        }
    }

    /// Renames; what is open follows.
    async fn rename(
        &mut self,
        from: &[u8],
        to: &[u8],
        replacing: Replacing,
    ) -> Result<(), Refused> {
        self.remote.rename(from, to, replacing).await?;
        let home = &self.remote.login.home;
        let (from, to) = (path::absolute(from, home), path::absolute(to, home));
        for open in self.open.values_mut() {
            if let Open::File(file) = open {
                let known = path::absolute(&file.place.path, home);
                file.place.path = path::moved(known, &from, &to);
            }
        }
        Ok(())
    }

    /// Refuses what would be open beyond the bound.
    fn has_room(&self) -> Result<(), Refused> {
        if self.open.len() >= SFTP_HANDLES_MAX {
            let text = format!("{SFTP_HANDLES_MAX} files are open already");
            return Err(Refused::new(Code::Failure, text));
        }
        Ok(())
    }

    /// Keeps what was opened; its handle.
    fn keep(&mut self, id: u32, open: Open) -> Bytes {
        let handle = self.next;
        self.next = self.next.wrapping_add(1);
        self.open.insert(handle, open);
        Writer::new(kind::HANDLE, id)
            .string(&handle.to_be_bytes())
            .finish()
    }

    fn take(&mut self, reader: &mut Reader<'_>) -> Result<Open, Refused> {
        let open = self.open.remove(&handle(reader)?);
        open.ok_or_else(|| Refused::new(Code::Failure, "no such handle"))
    }

    fn file<'a>(
        open: &'a mut BTreeMap<u32, Open>,
        reader: &mut Reader<'_>,
    ) -> Result<&'a mut OpenFile, Refused> {
        match open.get_mut(&handle(reader)?) {
            Some(Open::File(file)) => Ok(file),
            _ => Err(Refused::new(Code::Failure, "no such handle")),
        }
    }
}

impl Remote {
    /// Requests about paths.
    async fn request(&self, kind: u8, id: u32, reader: &mut Reader<'_>) -> Result<Bytes, Refused> {
        match kind {
            kind::STAT => {
                let place = self.place(reader.string()?);
                attrs(id, &self.stat(&place, Links::Follow).await?)
            }
            kind::LSTAT => {
                let place = self.place(reader.string()?);
                attrs(id, &self.stat(&place, Links::Keep).await?)
            }
            kind::SETSTAT => {
                let place = self.place(reader.string()?);
                let wanted = Wanted::read(reader)?;
                self.set(&place, Links::Follow, &wanted).await?;
                Ok(done(id))
            }
            kind::REMOVE => {
                self.remove(reader.string()?, false).await?;
                Ok(done(id))
            }
            kind::RMDIR => {
                self.remove(reader.string()?, true).await?;
                Ok(done(id))
            }
            kind::MKDIR => {
                let place = self.place(reader.string()?);
                let permissions = Wanted::read(reader)?.permissions.unwrap_or(0o777) & !UMASK;
                let files = &self.app.files;
                let made = files.make_directory(&self.vm, &place, Some(permissions), false);
                made.await.map_err(|error| refused(&error))?;
                Ok(done(id))
            }
            kind::REALPATH => {
                let path = path::absolute(reader.string()?, &self.login.home);
                Ok(name(id, &path))
            }
            kind::READLINK => {
                let place = self.place(reader.string()?);
                let found = self.stat(&place, Links::Keep).await?;
                if found.kind != FileKind::Symlink {
                    return Err(Refused::new(Code::Failure, "is no symbolic link"));
                }
                Ok(name(id, &found.link_target))
            }
            kind::SYMLINK => {
                // The target first: OpenSSH has it so, against the draft, and everybody follows.
                let target = reader.string()?;
                let place = self.place(reader.string()?);
                let files = &self.app.files;
                let made = files.make_symlink(&self.vm, &place, target, Replacing::Refused);
                made.await.map_err(|error| refused(&error))?;
                Ok(done(id))
            }
            _ => Err(Refused::new(Code::Unsupported, "is not supported")),
        }
    }
}

/// The next whole packet of what was heard, without its length.
fn packet(heard: &mut BytesMut) -> Result<Option<Bytes>, Refused> {
    let Some((length, rest)) = heard.split_at_checked(4) else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(length.try_into().expect("four bytes"));
    if !(5..=SFTP_PACKET_MAX).contains(&length) {
        let text = format!("a packet of {length} bytes came");
        return Err(Refused::new(Code::BadMessage, text));
    }
    let length = usize::try_from(length).expect("it is bounded");
    if rest.len() < length {
        return Ok(None);
    }
    heard.advance(4);
    Ok(Some(heard.split_to(length).freeze()))
}

fn handle(reader: &mut Reader<'_>) -> Result<u32, Refused> {
    let bytes = reader.string()?.try_into();
    let bytes = bytes.map_err(|_| Refused::new(Code::Failure, "no such handle"))?;
    Ok(u32::from_be_bytes(bytes))
}

fn attrs(id: u32, info: &FileInfo) -> Result<Bytes, Refused> {
    let mut writer = Writer::new(kind::ATTRS, id);
    attributes::write(&mut writer, info);
    Ok(writer.finish())
}

/// The answer that is one path.
fn name(id: u32, path: &[u8]) -> Bytes {
    let mut writer = Writer::new(kind::NAME, id);
    writer.u32(1).string(path).string(path);
    attributes::write_none(&mut writer);
    writer.finish()
}
