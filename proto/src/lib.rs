//! The gRPC contracts of banger: the public API and the private guest protocol.
//!
//! Generated code and nothing else; `tests/generated.rs` proves that it is fresh. The `.proto` files
//! beside this crate's manifest are the source and the documentation.
#![forbid(unsafe_code)]

/// The public API, package `banger.v1`.
#[cfg(feature = "public")]
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::disallowed_methods
)]
pub mod v1 {
    include!("generated/banger.v1.rs");
}

/// What both contracts say about workspaces.
pub mod workspace {
    /// Package `banger.workspace.v1`.
    #[allow(
        missing_docs,
        missing_debug_implementations,
        unreachable_pub,
        clippy::all,
        clippy::pedantic,
        clippy::disallowed_methods
    )]
    pub mod v1 {
        include!("generated/banger.workspace.v1.rs");
    }
}

/// The private protocol between host and guest.
pub mod guest {
    /// Package `banger.guest.v1`.
    #[allow(
        missing_docs,
        missing_debug_implementations,
        unreachable_pub,
        clippy::all,
        clippy::pedantic,
        clippy::disallowed_methods
    )]
    pub mod v1 {
        include!("generated/banger.guest.v1.rs");
    }

    /// The highest generation of the guest protocol that this crate describes.
    pub const GENERATION: i32 = 2;
}

/// The descriptors of every package, for server reflection.
#[cfg(feature = "public")]
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptors.bin");
