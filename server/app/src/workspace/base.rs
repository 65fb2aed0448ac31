//! What a snapshot brings into a VM, and its caller therefore has.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use banger_core::workspace::{Base, Part};
use banger_workspace::wire::limits::KNOWN_COMMITS_MAX;
use banger_workspace::wire::{BaseRepository, Piece, RepositoryKind};
use futures::stream::{BoxStream, StreamExt as _};

/// What was seen of a snapshot.
#[derive(Debug, Default)]
struct Seen {
    base: Base,
    commits: usize,
    has_git: bool,
}

/// Collects the base of a snapshot that goes by.
#[derive(Debug, Clone, Default)]
pub(super) struct Collected(Arc<Mutex<Seen>>);

impl Collected {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Each section adds whole items.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same parts, seen.
    pub(super) fn watching(&self, parts: BoxStream<'static, Part>) -> BoxStream<'static, Part> {
        let collected = self.clone();
        parts
            .inspect(move |part| collected.seen().add(part))
            .boxed()
    }

    /// What was seen.
    pub(super) fn base(&self) -> Base {
        self.seen().base.clone()
    }

    /// Whether the workspace itself has a repository.
    pub(super) fn has_git(&self) -> bool {
        self.seen().has_git
    }
}

impl Seen {
    fn add(&mut self, part: &Part) {
        match &part.part {
            Some(Piece::Repository(repository)) => {
                let is_git = repository.kind() == RepositoryKind::Git;
                self.has_git |= is_git && repository.path.is_empty();
                // Whatever is wrong with it, the judge on the way says.
                if self.base.repositories.len() < banger_workspace::wire::limits::REPOSITORIES_MAX {
                    self.base.repositories.push(BaseRepository {
                        path: repository.path.clone(),
                        commits: Vec::new(),
                        head_commit: repository.head_commit.clone(),
                        shallow: repository.shallow.clone(),
                    });
                }
                self.commit(&repository.head_commit);
            }
            Some(Piece::Refs(refs)) => {
                for found in &refs.refs {
                    self.commit(&found.object_id);
                }
            }
            _ => {}
        }
    }

    fn commit(&mut self, id: &str) {
        // Beyond the bound an export brings more than it need.
        if id.is_empty() || self.commits == KNOWN_COMMITS_MAX {
            return;
        }
        if let Some(repository) = self.base.repositories.last_mut() {
            repository.commits.push(id.to_owned());
            self.commits += 1;
        }
    }
}
