//! From layers to one tree: the rules of the OCI image specification ("Applying Changesets"), in memory.
//!
//! A layer's whiteouts and opaque marks hide what lower layers brought, never what the same layer brings,
//! whatever the order of its entries. What is on the way to an entry is resolved inside the tree: a
//! symbolic link there is followed within the image, as containerd does, with `..` stopping at the root;
//! the entry itself replaces whatever has its name, except that a directory over a directory keeps the
//! children. Missing parents are made, owned by root, mode 0755, at the epoch.
//!
//! Nothing here touches a file: contents are places in the layers.

mod error;
mod names;
#[cfg(test)]
mod tests;
mod tree;
mod whiteout;

pub use error::FlattenError;
pub(crate) use tree::{Inode, Node, Place, ROOT, Tree};
pub(crate) use whiteout::names_a_file;
