//! What builds need of images: archives of files to copy from, layers to write, images to put together and
//! layouts to take away.

mod archive;
mod assemble;
mod layer;
mod layout;

pub use archive::{TreeArchive, Unpacked};
pub use assemble::{HistoryLine, ImageDescription};
pub use banger_archive::TarWriter;
pub use layer::{LayerWriter, NewLayer};
pub use layout::OciLayout;

#[cfg(test)]
mod tests;
