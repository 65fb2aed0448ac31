//! What builds need of images: archives of files to copy from, layers to write, images to put together and
//! layouts to take away.

mod archive;
mod assemble;
mod layer;
mod layout;
mod writer;

pub use archive::{TreeArchive, Unpacked};
pub use assemble::{HistoryLine, ImageDescription};
pub use layer::{LayerWriter, NewLayer};
pub use layout::OciLayout;
pub use writer::TarWriter;

#[cfg(test)]
mod tests;
