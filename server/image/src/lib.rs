//! Images and kernels: from a registry, an archive or a package to bootable files.
