//! Pages: sizes with a default and a limit, and tokens that are the last id of the page before.

use banger_core::{OperationId, VmId};

use super::field;
use crate::grpc::request::RequestError;

/// The size of a page whose caller gives none.
const SIZE_DEFAULT: u32 = 100;
/// The largest page; larger requests get it.
const SIZE_MAX: u32 = 1000;

/// Which page is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PageRequest {
    /// The most items.
    pub(crate) size: u32,
    /// The last id of the page before.
    pub(crate) before: Option<String>,
}

impl PageRequest {
    /// The page for a VM's list.
    pub(crate) fn before_vm(&self) -> Option<VmId> {
        self.before.as_deref().and_then(|id| id.parse().ok())
    }
}

/// Checks a size.
pub(crate) fn size(asked: i32) -> Result<u32, RequestError> {
    Ok(match field::natural("page_size", asked)? {
        0 => SIZE_DEFAULT,
        size => SIZE_MAX.min(size),
    })
}

/// Checks a size and a token.
pub(crate) fn request(size: i32, token: &str) -> Result<PageRequest, RequestError> {
    let size = self::size(size)?;
    // All ids have one form; whose they are does not matter here.
    let is_token = |text: &str| text.parse::<OperationId>().is_ok();
    match token {
        "" => Ok(PageRequest { size, before: None }),
        text if is_token(text) => Ok(PageRequest {
            size,
            before: Some(text.to_ascii_lowercase()),
        }),
        _ => Err(RequestError::invalid(
            "page_token",
            "is not the token of a page",
        )),
    }
}

/// The token of the page that follows.
pub(crate) fn next<T>(items: &[T], has_more: bool, id: impl Fn(&T) -> String) -> String {
    items
        .last()
        .filter(|_| has_more)
        .map(id)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_default_and_a_limit() {
        let size = |size| request(size, "").map(|page| page.size);
        assert_eq!((size(0), size(7), size(5000)), (Ok(100), Ok(7), Ok(1000)));
        assert_eq!(
            size(-1).unwrap_err().to_string(),
            "page_size is -1, which is out of range"
        );
    }

    #[test]
    fn a_token_is_an_id_that_was_given_out() {
        let id = VmId::new();
        let page = request(1, &id.to_string()).unwrap();
        assert_eq!(page.before_vm(), Some(id));
        assert_eq!(
            request(1, "x").unwrap_err().to_string(),
            "page_token is not the token of a page"
        );
    }

    #[test]
    fn the_last_page_has_no_token() {
        assert_eq!(next(&["a", "b"], true, ToString::to_string), "b");
        assert_eq!(next(&["a", "b"], false, ToString::to_string), "");
    }
}
