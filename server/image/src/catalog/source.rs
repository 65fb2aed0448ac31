//! A catalog's files, wherever it lies.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use banger_catalog::{CATALOG_BYTES_MAX, CATALOG_FILE, FilePart};
use bytes::Bytes;
use reqwest::{Client, Url};

use super::http::{HttpStream, Length};
use super::{CatalogAddress, SourceError, directory, http};
use crate::transport::TlsSettings;

/// The settings of catalogs' servers, by `host:port`, or by `host` for every port of it.
pub type CatalogHosts = BTreeMap<String, TlsSettings>;

/// How a catalog is spoken to.
#[derive(Debug, Clone)]
pub struct SourceOptions {
    /// Whom TLS trusts at which server, and who this host is there.
    pub hosts: Arc<CatalogHosts>,
    /// The longest wait for a connection.
    pub connect_timeout: Duration,
    /// The longest wait for an answer, or for the next byte of one.
    pub stall_timeout: Duration,
    /// The longest time in which nothing of an index comes, however often it is tried.
    pub index_silence: Duration,
    /// The longest time for a whole index.
    pub index_timeout: Duration,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            hosts: Arc::default(),
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            index_silence: Duration::from_secs(60),
            index_timeout: Duration::from_secs(2 * 3600),
        }
    }
}

/// A catalog that files can be had from.
#[derive(Debug, Clone)]
pub struct CatalogSource {
    place: Place,
    stall: Duration,
    index_silence: Duration,
    index_timeout: Duration,
}

#[derive(Debug, Clone)]
enum Place {
    Http { client: Client, base: Url },
    Directory(PathBuf),
}

impl CatalogSource {
    /// The catalog at `address`; nothing is read or connected to yet.
    ///
    /// # Errors
    /// If the HTTP client cannot be set up, or a file of the server's settings cannot be used.
    pub fn new(address: &CatalogAddress, options: &SourceOptions) -> Result<Self, SourceError> {
        let place = match address {
            CatalogAddress::Http(base) => Place::Http {
                client: http::client(options, base, address.is_plain())?,
                base: base.clone(),
            },
            CatalogAddress::Directory(path) => Place::Directory(path.clone()),
        };
        Ok(Self {
            place,
            stall: options.stall_timeout,
            index_silence: options.index_silence,
            index_timeout: options.index_timeout,
        })
    }

    /// The bytes of its `catalog.json`, which nobody has looked at.
    ///
    /// # Errors
    /// If it does not come, or not within its bounds.
    pub async fn catalog_json(&self) -> Result<Vec<u8>, SourceError> {
        let mut stream = self.stream(CATALOG_FILE, Length::AtMost(CATALOG_BYTES_MAX));
        let mut bytes = Vec::new();
        let begun = Instant::now();
        loop {
            let left = self.index_timeout.saturating_sub(begun.elapsed());
            let coming = tokio::time::timeout(left.min(self.index_silence), stream.next_chunk());
            match coming.await {
                Ok(chunk) => match chunk? {
                    Some(chunk) => bytes.extend_from_slice(&chunk),
                    None => return Ok(bytes),
                },
                Err(_) if left < self.index_silence => {
                    return Err(SourceError::TooSlow {
                        file: CATALOG_FILE.to_owned(),
                        window: self.index_timeout,
                        bytes: bytes.len() as u64,
                    });
                }
                Err(_) => {
                    return Err(SourceError::Stalled {
                        file: CATALOG_FILE.to_owned(),
                        stall: self.index_silence,
                    });
                }
            }
        }
    }

    /// A file that an index names. Its length is seen to; its digest is the reader's.
    pub(crate) fn artifact(&self, file: &FilePart) -> ArtifactStream {
        self.stream(file.path.as_str(), Length::Exactly(file.size_bytes))
    }

    fn stream(&self, name: &str, length: Length) -> ArtifactStream {
        let kind = match &self.place {
            Place::Http { client, base } => {
                let url = base
                    .join(name)
                    .expect("a path of plain words fits every base");
                let stream =
                    HttpStream::new(client.clone(), url, name.to_owned(), length, self.stall);
                Kind::Http(Box::new(stream))
            }
            Place::Directory(root) => Kind::Directory {
                root: root.clone(),
                name: name.to_owned(),
                length,
                file: None,
            },
        };
        ArtifactStream { kind, received: 0 }
    }
}

/// A catalog's file being received.
#[derive(Debug)]
pub(crate) struct ArtifactStream {
    kind: Kind,
    received: u64,
}

#[derive(Debug)]
enum Kind {
    Http(Box<HttpStream>),
    Directory {
        root: PathBuf,
        name: String,
        length: Length,
        file: Option<File>,
    },
}

impl ArtifactStream {
    /// The next chunk; `None` at the end. Cancel-safe only by giving the stream up.
    pub(crate) async fn next_chunk(&mut self) -> Result<Option<Bytes>, SourceError> {
        match &mut self.kind {
            Kind::Http(stream) => stream.next_chunk().await,
            Kind::Directory {
                root,
                name,
                length,
                file,
            } => {
                let (root, owned, kept) = (root.clone(), name.clone(), file.take());
                let reading = tokio::task::spawn_blocking(move || read_piece(&root, owned, kept));
                let (kept, piece) = reading.await.map_err(|_| SourceError::Unreadable {
                    file: name.clone(),
                    source: std::io::Error::other("the reading thread ended unexpectedly"),
                })??;
                *file = Some(kept);
                self.received += piece.as_ref().map_or(0, |piece| piece.len() as u64);
                check_length(name, *length, self.received, piece.is_none())?;
                Ok(piece)
            }
        }
    }
}

/// One piece of a file in a directory, opened where it is not. Blocks.
fn read_piece(
    root: &std::path::Path,
    name: String,
    kept: Option<File>,
) -> Result<(File, Option<Bytes>), SourceError> {
    let mut file = match kept {
        Some(file) => file,
        None => directory::open(root, &name)?,
    };
    let piece = directory::next_piece(&mut file)
        .map_err(|source| SourceError::Unreadable { file: name, source })?;
    Ok((file, piece))
}

fn check_length(name: &str, length: Length, received: u64, ended: bool) -> Result<(), SourceError> {
    let file = name.to_owned();
    match length {
        Length::AtMost(limit) if received > limit => Err(SourceError::TooLarge { file, limit }),
        Length::Exactly(expected) if received > expected || (ended && received < expected) => {
            Err(SourceError::WrongSize {
                file,
                expected,
                actual: received,
            })
        }
        _ => Ok(()),
    }
}
