//! A catalog's address.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use reqwest::Url;

use super::SourceError;
use crate::transport::is_loopback;

/// Where a catalog is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogAddress {
    /// Below this URL, which ends in a slash.
    Http(Url),
    /// In this directory of the host.
    Directory(PathBuf),
}

impl CatalogAddress {
    /// Whether it is spoken to without TLS.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Http(url) if url.scheme() == "http")
    }
}

impl fmt::Display for CatalogAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => f.write_str(url.as_str()),
            Self::Directory(path) => write!(f, "{}", path.display()),
        }
    }
}

impl FromStr for CatalogAddress {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let bad = |problem| SourceError::BadAddress {
            address: text.chars().take(200).collect(),
            problem,
        };
        if text.starts_with('/') {
            return directory(text).ok_or_else(|| bad("a directory is named without `.` and `..`"));
        }
        let mut url =
            Url::parse(text).map_err(|_| bad("it is neither a URL nor an absolute path"))?;
        match url.scheme() {
            "https" => {}
            "http" if url.host_str().is_some_and(is_loopback) => {}
            "http" => return Err(bad("http is for this host's loopback only: use https")),
            "file" => {
                let path = url
                    .to_file_path()
                    .map_err(|()| bad("it names no directory"))?;
                let path = path.to_str().ok_or_else(|| bad("it names no directory"))?;
                return directory(path).ok_or_else(|| bad("it names no directory"));
            }
            _ => {
                return Err(bad(
                    "only https, http on the loopback, and directories are known",
                ));
            }
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("it must not hold a user or password"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(bad("it must not have a query or fragment"));
        }
        if let Some(directory) = url.path().strip_suffix(banger_catalog::CATALOG_FILE) {
            let directory = directory.to_owned();
            url.set_path(&directory);
        }
        if !url.path().ends_with('/') {
            let path = format!("{}/", url.path());
            url.set_path(&path);
        }
        Ok(Self::Http(url))
    }
}

fn directory(text: &str) -> Option<CatalogAddress> {
    let path = Path::new(text);
    let is_plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    (path.components().all(is_plain) && !text.contains('\0') && !text.contains("/./"))
        .then(|| CatalogAddress::Directory(path.components().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_core::Explain;

    #[test]
    fn an_address_becomes_canonical() {
        for (text, canonical) in [
            ("https://example.com", "https://example.com/"),
            ("https://example.com/a/b", "https://example.com/a/b/"),
            (
                "https://example.com/a/catalog.json",
                "https://example.com/a/",
            ),
            ("http://127.0.0.1:8080/x/", "http://127.0.0.1:8080/x/"),
            ("http://localhost:1", "http://localhost:1/"),
            ("http://[::1]:1", "http://[::1]:1/"),
            ("/srv/catalog/", "/srv/catalog"),
            ("file:///srv/catalog", "/srv/catalog"),
        ] {
            assert_eq!(
                text.parse::<CatalogAddress>().unwrap().to_string(),
                canonical
            );
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "example.com",
            "relative/dir",
            "http://example.com",
            "http://127.0.0.1.example.com",
            "https://me:secret@example.com",
            "https://example.com/?a",
            "https://example.com/#a",
            "ftp://example.com",
            "/srv/../etc",
            "/srv/./x",
            "/srv/\0",
            "data:text/plain,x",
        ] {
            let error = text.parse::<CatalogAddress>().unwrap_err();
            assert_eq!(error.reason(), "CATALOG_ADDRESS_INVALID", "{text}");
        }
    }
}
