//! Media types: which layers can be used, and whether a registry's word fits the document.

use super::{
    DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, Document, DocumentError, MANIFEST_TYPES, OCI_INDEX,
    OCI_LAYER, OCI_MANIFEST, cut, unsupported,
};

/// Media types of layers, without the suffix that names the compression.
const LAYER_TYPES: [&str; 2] = [OCI_LAYER, "application/vnd.docker.image.rootfs.diff.tar"];
/// Layers that a registry must not hold (OCI image specification 1.1, "Non-distributable Layers").
const FOREIGN_TYPES: [&str; 2] = [
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
];
/// What the specifications add to a layer's type. What a layer really is, its first bytes say.
const COMPRESSION_SUFFIXES: [&str; 5] = ["", "+gzip", "+zstd", ".gzip", ".zstd"];
/// How an encrypted layer's type ends (the `ocicrypt` project).
const ENCRYPTED_SUFFIX: &str = "+encrypted";
/// The manifests before schema 2.
const SCHEMA1_PREFIX: &str = "application/vnd.docker.distribution.manifest.v1+";
/// What servers say who do not know, or do not care.
const VAGUE_TYPES: [&str; 5] = [
    "",
    "application/json",
    "application/octet-stream",
    "binary/octet-stream",
    "text/plain",
];

pub(super) fn is_schema1(media_type: &str) -> bool {
    media_type.starts_with(SCHEMA1_PREFIX)
}

/// Refuses a layer that cannot be used, by what kind it is.
pub(super) fn check_layer(layer: &Descriptor) -> Result<(), DocumentError> {
    let (digest, media_type) = (layer.digest, layer.media_type.as_str());
    let told = || cut(media_type.to_owned());
    if FOREIGN_TYPES
        .iter()
        .any(|foreign| media_type.starts_with(foreign))
    {
        return Err(DocumentError::ForeignLayer {
            digest,
            media_type: told(),
        });
    }
    if media_type.ends_with(ENCRYPTED_SUFFIX) {
        return Err(DocumentError::EncryptedLayer {
            digest,
            media_type: told(),
        });
    }
    let suffix = LAYER_TYPES
        .iter()
        .find_map(|known| media_type.strip_prefix(known));
    match suffix {
        Some(suffix) if COMPRESSION_SUFFIXES.contains(&suffix) => Ok(()),
        _ => Err(unsupported("layer", media_type)),
    }
}

/// Parses a manifest or index as a registry served it: `content_type` is its header's value. What says that it
/// is no manifest (a log-in page) is not looked at; what its registry and its reader would take for two
/// different things is refused.
pub(crate) fn parse_served(bytes: &[u8], content_type: &str) -> Result<Document, DocumentError> {
    let served = content_type.split(';').next().unwrap_or_default();
    let served = served.trim().to_ascii_lowercase();
    let is_vague = VAGUE_TYPES.contains(&served.as_str());
    if is_schema1(&served) {
        return Err(DocumentError::Schema1);
    }
    if !is_vague && !MANIFEST_TYPES.contains(&served.as_str()) {
        return Err(DocumentError::NotAManifest {
            content_type: cut(served),
        });
    }
    let document = Document::parse(bytes)?;
    if !is_vague {
        agree(&document, served)?;
    }
    Ok(document)
}

fn agree(document: &Document, served: String) -> Result<(), DocumentError> {
    let (says, forms) = match document {
        Document::Manifest(manifest) => (
            manifest.media_type.as_str(),
            [OCI_MANIFEST, DOCKER_MANIFEST],
        ),
        Document::Index(_) => ("", [OCI_INDEX, DOCKER_INDEX]),
    };
    let agrees = says == served || (says.is_empty() && forms.contains(&served.as_str()));
    if agrees {
        return Ok(());
    }
    Err(DocumentError::Ambiguous {
        media_type: if says.is_empty() { forms[0] } else { says }.to_owned(),
        content_type: served,
    })
}

#[cfg(test)]
mod tests;
