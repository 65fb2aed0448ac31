//! Catalogs and what they offer.

use banger_app::catalog::{AddRequest, CatalogView, Entry, EntryFilter, EntryKind};
use banger_proto::v1;
use banger_proto::v1::catalog_entry::Kind;

use super::field::{self, int, time};
use crate::grpc::request::RequestError;
use crate::grpc::status;

/// The size of a page whose caller gives none.
const SIZE_DEFAULT: usize = 100;
/// The largest page; larger requests get it.
const SIZE_MAX: usize = 1000;

pub(crate) fn catalog(view: &CatalogView) -> v1::Catalog {
    let catalog = &view.catalog;
    v1::Catalog {
        name: catalog.name.to_string(),
        url: catalog.url.clone(),
        public_key: catalog.public_key.clone(),
        version: int(catalog.version),
        entry_count: i32::try_from(view.entry_count).unwrap_or(i32::MAX),
        expire_time: Some(time(catalog.expire_time)),
        create_time: Some(time(catalog.create_time)),
        refresh_time: Some(time(catalog.refresh_time)),
        refresh_error: catalog.refresh_error.as_ref().map(status::message),
    }
}

pub(crate) fn entry(entry: &Entry) -> v1::CatalogEntry {
    let kind = match entry.kind {
        EntryKind::Bundle => Kind::Bundle,
        EntryKind::Kernel => Kind::Kernel,
    };
    v1::CatalogEntry {
        catalog: entry.catalog.clone(),
        kind: kind.into(),
        name: entry.name.clone(),
        version: entry.version.clone(),
        architecture: entry.architecture.clone(),
        description: entry.description.clone(),
        size_bytes: int(entry.size_bytes),
        sha256: entry.digest.hex(),
        kernel: entry.kernel.clone(),
        rootfs_size_bytes: int(entry.rootfs_size_bytes),
    }
}

pub(crate) fn add(request: v1::AddCatalogRequest) -> Result<AddRequest, RequestError> {
    field::named("url", &request.url)?;
    field::named("public_key", &request.public_key)?;
    Ok(AddRequest {
        name: request.name,
        url: request.url,
        public_key: request.public_key,
    })
}

pub(crate) fn filter(request: v1::ListCatalogEntriesRequest) -> Result<EntryFilter, RequestError> {
    let kind = match Kind::try_from(request.kind) {
        Ok(Kind::Unspecified) => None,
        Ok(Kind::Bundle) => Some(EntryKind::Bundle),
        Ok(Kind::Kernel) => Some(EntryKind::Kernel),
        Err(_) => return Err(RequestError::invalid("kind", "is not a kind")),
    };
    Ok(EntryFilter {
        catalog: request.catalog,
        query: request.query,
        kind,
        architecture: request.architecture,
    })
}

/// A page of a list that has an order of its own.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NumberedPage<'a, T> {
    pub(crate) items: &'a [T],
    /// The token of the page that follows.
    pub(crate) next: String,
}

/// The page that is wanted; its token is the number of items before it.
pub(crate) fn page<'a, T>(
    all: &'a [T],
    size: i32,
    token: &str,
) -> Result<NumberedPage<'a, T>, RequestError> {
    let size: usize = match field::natural("page_size", size)? {
        0 => SIZE_DEFAULT,
        size => SIZE_MAX.min(size),
    };
    let begin = match token {
        "" => 0,
        token => token
            .parse::<usize>()
            .map_err(|_| RequestError::invalid("page_token", "is not the token of a page"))?,
    };
    let begin = begin.min(all.len());
    let end = begin.saturating_add(size).min(all.len());
    Ok(NumberedPage {
        items: &all[begin..end],
        next: match end < all.len() {
            true => end.to_string(),
            false => String::new(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_to_the_end() {
        let all = [1, 2, 3];
        let first = page(&all, 2, "").unwrap();
        assert_eq!((first.items, first.next.as_str()), (&all[..2], "2"));
        let last = page(&all, 2, "2").unwrap();
        assert_eq!((last.items, last.next.as_str()), (&all[2..], ""));
        assert_eq!(page(&all, 0, "99").unwrap().items, &[] as &[i32]);
        assert!(page(&all, -1, "").is_err());
        assert!(page(&all, 1, "x").is_err());
    }
}
