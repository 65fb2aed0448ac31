//! How lists are cut.

/// One page of a list, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The most items.
    pub limit: u32,
    /// Only items older than the one with this id; absent begins at the newest. Ids are hyphenated
    /// lower-case UUIDv7, whose order as text is the order of creation.
    pub before: Option<String>,
}

impl Page {
    /// The first page.
    #[must_use]
    pub const fn first(limit: u32) -> Self {
        Self {
            limit,
            before: None,
        }
    }

    /// The page after the item with this id.
    #[must_use]
    pub fn after(id: impl std::fmt::Display, limit: u32) -> Self {
        Self {
            limit,
            before: Some(id.to_string()),
        }
    }
}
