//! Pages of lists, newest first. A page token is the last id of the page before, so that a list stays right
//! while things come and go.

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paged<T> {
    /// The items.
    pub items: Vec<T>,
    /// Whether more follow.
    pub has_more: bool,
}

/// Cuts a list that was asked for with one item more than wanted.
pub(crate) fn cut<T>(mut items: Vec<T>, limit: usize) -> Paged<T> {
    let has_more = items.len() > limit;
    items.truncate(limit);
    Paged { items, has_more }
}
