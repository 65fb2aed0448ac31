"""Images, kernels, catalogs and volumes."""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

from google.protobuf import field_mask_pb2

from banger import _methods, errors, v1
from banger._async import _io
from banger._async._call import PAGE_SIZE, Caller, Progress, new_request_id, operation_to
from banger._async.export import save
from banger._glob import Ignored
from banger._mount import NETWORKS, Network
from banger._pack import chunked, chunks_of, pack_content

_SOURCES = {
    "any": v1.PullImageRequest.SOURCE_UNSPECIFIED,
    "catalog": v1.PullImageRequest.SOURCE_CATALOG,
    "registry": v1.PullImageRequest.SOURCE_REGISTRY,
}


_FORMATS = {
    "any": v1.RegisterImageStart.FORMAT_UNSPECIFIED,
    "oci-layout": v1.RegisterImageStart.FORMAT_OCI_LAYOUT,
    "docker-archive": v1.RegisterImageStart.FORMAT_DOCKER_ARCHIVE,
    "rootfs-tar": v1.RegisterImageStart.FORMAT_ROOTFS_TAR,
    "bundle": v1.RegisterImageStart.FORMAT_BUNDLE,
    "ext4": v1.RegisterImageStart.FORMAT_EXT4,
}


def _made(_: Caller, message: Any) -> Any:
    """What was made is the API's own message."""
    return message


class Images:
    """Images."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def pull(
        self,
        reference: str,
        *,
        platform: str = "",
        auth: v1.BasicAuth | None = None,
        kernel: str = "",
        replace: bool = False,
        source: Literal["any", "catalog", "registry"] = "any",
        on_progress: Progress | None = None,
        request_id: str | uuid.UUID | None = None,
    ) -> v1.Image:
        """Gets an image from a catalog or a registry. `on_progress` is called with the operation each time it has
        changed; its stages have bytes done and in all. Pulls of one image share the work.
        """
        request = v1.PullImageRequest(
            reference=reference,
            platform=platform,
            auth=auth,
            kernel=kernel,
            replace=replace,
            source=_SOURCES[source],
            request_id=new_request_id(request_id),
        )
        image: v1.Image = await self._caller.follow(_methods.PULL_IMAGE, request, "image", on_progress, _made)
        return image

    async def register(
        self,
        reference: str,
        archive: str | os.PathLike[str] | BinaryIO,
        *,
        format: Literal["any", "oci-layout", "docker-archive", "rootfs-tar", "bundle", "ext4"] = "any",  # noqa: A002
        config: v1.ImageConfig | None = None,
        platform: str = "",
        image: str = "",
        kernel: str = "",
        replace: bool = False,
        on_progress: Progress | None = None,
    ) -> v1.Image:
        """Makes an image of an archive: a file, or what `read()` gives. `config` is that of a root filesystem; archives
        of images bring their own. `image` is the name of one of several images in an archive. A name that another
        image has is refused without `replace`. Not repeated when the connection breaks.
        """
        start = v1.RegisterImageStart(
            reference=reference,
            format=_FORMATS[format],
            config=config,
            platform=platform,
            image=image,
            kernel=kernel,
            replace=replace,
            request_id=new_request_id(None),
        )
        made: v1.Image = await self._caller.upload(
            _methods.REGISTER_IMAGE,
            v1.RegisterImageRequest(start=start),
            chunks_of(archive),
            lambda chunk: v1.RegisterImageRequest(chunk=chunk),
            None,
            "image",
            operation_to(on_progress),
        )
        return made

    async def build(
        self,
        reference: str,
        context: str | os.PathLike[str],
        *,
        dockerfile: str | os.PathLike[str] | None = None,
        text: str | None = None,
        build_args: Mapping[str, str] | None = None,
        target: str = "",
        auths: Mapping[str, v1.BasicAuth] | None = None,
        no_cache: bool = False,
        vcpu_count: int = 0,
        memory_mib: int = 0,
        disk_bytes: int = 0,
        network: Network = "default",
        kernel: str = "",
        on_progress: Progress | None = None,
        on_log: Callable[[v1.BuildLog], object] | None = None,
        request_id: str | uuid.UUID | None = None,
    ) -> v1.Image:
        """Builds an image in VMs by the `Dockerfile` in the directory `context`, by another file, or by a text; what
        `.dockerignore` names stays here. `target` is the stage to build, the last one by itself. `auths` are logins
        for base images, by registry, repository in it, or a part of its path. `on_log` gets the output of the steps.
        Not repeated when the connection breaks. See docs/building-images.md.
        """
        recipe, ignored = await _io.blocking(_recipe, Path(context), dockerfile, text)
        recipe.build_args.update(build_args or {})
        recipe.target = target
        start = v1.BuildImageStart(dockerfile=recipe, auths=auths)
        return await self._build(
            start,
            chunked(pack_content(context, ignored)),
            reference,
            no_cache=no_cache,
            vcpu_count=vcpu_count,
            memory_mib=memory_mib,
            disk_bytes=disk_bytes,
            network=network,
            kernel=kernel,
            on_progress=on_progress,
            on_log=on_log,
            request_id=request_id,
        )

    async def build_debian(
        self,
        reference: str,
        suite: str,
        *,
        include: Sequence[str] = (),
        variant: str = "",
        no_cache: bool = False,
        vcpu_count: int = 0,
        memory_mib: int = 0,
        disk_bytes: int = 0,
        network: Network = "default",
        kernel: str = "",
        on_progress: Progress | None = None,
        on_log: Callable[[v1.BuildLog], object] | None = None,
        request_id: str | uuid.UUID | None = None,
    ) -> v1.Image:
        """Makes a root filesystem of a Debian suite's packages; `variant` is as mmdebstrap has it, else `minbase`."""
        start = v1.BuildImageStart(debian=v1.DebianRecipe(suite=suite, variant=variant, include=include))
        return await self._build(
            start,
            iter(()),
            reference,
            no_cache=no_cache,
            vcpu_count=vcpu_count,
            memory_mib=memory_mib,
            disk_bytes=disk_bytes,
            network=network,
            kernel=kernel,
            on_progress=on_progress,
            on_log=on_log,
            request_id=request_id,
        )

    async def _build(
        self,
        start: v1.BuildImageStart,
        chunks: Iterator[bytes],
        reference: str,
        *,
        no_cache: bool,
        vcpu_count: int,
        memory_mib: int,
        disk_bytes: int,
        network: Network,
        kernel: str,
        on_progress: Progress | None,
        on_log: Callable[[v1.BuildLog], object] | None,
        request_id: str | uuid.UUID | None,
    ) -> v1.Image:
        start.MergeFrom(
            v1.BuildImageStart(
                reference=reference,
                no_cache=no_cache,
                vcpu_count=vcpu_count,
                memory_mib=memory_mib,
                disk_size_bytes=disk_bytes,
                network=NETWORKS[network],
                kernel=kernel,
                request_id=new_request_id(request_id),
            )
        )
        tell = operation_to(on_progress)

        def told(message: Any) -> None:
            if on_log is not None and message.WhichOneof("message") == "log":
                on_log(message.log)
            tell(message)

        image: v1.Image = await self._caller.upload(
            _methods.BUILD_IMAGE,
            v1.BuildImageRequest(start=start),
            chunks,
            lambda chunk: v1.BuildImageRequest(chunk=chunk),
            None,
            "image",
            told,
        )
        return image

    async def export_bundle(
        self,
        image: str,
        path: str | os.PathLike[str],
        *,
        name: str = "",
        version: str = "",
        kernel: str = "",
        on_progress: Callable[[int], object] | None = None,
    ) -> v1.ExportEnd:
        """Writes an image as a bundle (`.tar.zst`) to a file, which appears when it is whole; its size and digest."""
        request = v1.ExportBundleRequest(image=image, name=name, version=version, kernel=kernel)
        stream = self._caller.channel.stream(_methods.EXPORT_BUNDLE, request)
        return await save(stream, "ExportBundle", path, on_progress)

    async def export_oci_layout(
        self, image: str, path: str | os.PathLike[str], *, on_progress: Callable[[int], object] | None = None
    ) -> v1.ExportEnd:
        """Writes an image as a tar of an OCI image layout to a file, which appears when it is whole; its size and
        digest.
        """
        request = v1.ExportOciLayoutRequest(image=image)
        stream = self._caller.channel.stream(_methods.EXPORT_OCI_LAYOUT, request)
        return await save(stream, "ExportOciLayout", path, on_progress)

    async def get(self, image: str) -> v1.Image:
        """The one with this id, reference or digest."""
        return (await self._caller.repeat(_methods.GET_IMAGE, v1.GetImageRequest(image=image))).image

    async def list(self) -> AsyncIterator[v1.Image]:
        """All images, newest first."""
        pages = self._caller.pages(
            _methods.LIST_IMAGES,
            lambda token: v1.ListImagesRequest(page_size=PAGE_SIZE, page_token=token),
            lambda page: page.images,
        )
        async for image in pages:
            yield image

    async def usage(self) -> AsyncIterator[v1.ImageUsage]:
        """What images take on the host, newest first."""
        pages = self._caller.pages(
            _methods.LIST_IMAGE_USAGE,
            lambda token: v1.ListImageUsageRequest(page_size=PAGE_SIZE, page_token=token),
            lambda page: page.images,
        )
        async for usage in pages:
            yield usage

    async def tag(self, image: str, reference: str, *, replace: bool = False) -> v1.Image:
        """Gives an image another reference."""
        request = v1.TagImageRequest(image=image, reference=reference, replace=replace, request_id=new_request_id(None))
        return (await self._caller.repeat(_methods.TAG_IMAGE, request)).image

    async def delete(self, image: str) -> v1.DeleteImageResponse:
        """Removes an image, unless a VM uses it; one of several references is removed alone."""
        request = v1.DeleteImageRequest(image=image, request_id=new_request_id(None))
        return await self._caller.repeat(_methods.DELETE_IMAGE, request)

    async def prune(
        self, *, unused: bool = False, older_than: float = 0, build_cache: bool = False, dry_run: bool = False
    ) -> v1.PruneImagesResponse:
        """Removes images that have no reference, or with `unused` every image that no VM uses."""
        request = v1.PruneImagesRequest(
            all=unused,
            older_than_seconds=int(older_than),
            build_cache=build_cache,
            dry_run=dry_run,
            request_id=new_request_id(None),
        )
        return await self._caller.repeat(_methods.PRUNE_IMAGES, request)


def _recipe(
    context: Path, dockerfile: str | os.PathLike[str] | None, text: str | None
) -> tuple[v1.DockerfileRecipe, Ignored]:
    """The Dockerfile, and what is left out: by the file beside it that is named after it, else by the context's own."""
    file = context / "Dockerfile" if dockerfile is None else Path(dockerfile)
    try:
        recipe = v1.DockerfileRecipe(text=text if text is not None else file.read_text())
        if text is None:
            recipe.name = str(file)
        for candidate in (file.with_name(file.name + ".dockerignore"), context / ".dockerignore"):
            if candidate.is_file():
                return recipe, Ignored(candidate.read_text())
    except OSError as error:
        raise errors.LocalFileError(str(error.filename or context), "read", error) from error
    return recipe, Ignored("")


class Kernels:
    """Kernels."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def pull(
        self,
        kernel: str,
        *,
        name: str = "",
        make_default: bool = False,
        replace: bool = False,
        on_progress: Progress | None = None,
        request_id: str | uuid.UUID | None = None,
    ) -> v1.Kernel:
        """Gets a kernel from a catalog."""
        request = v1.PullKernelRequest(
            kernel=kernel,
            name=name,
            make_default=make_default,
            replace=replace,
            request_id=new_request_id(request_id),
        )
        made: v1.Kernel = await self._caller.follow(_methods.PULL_KERNEL, request, "kernel", on_progress, _made)
        return made

    async def import_package(
        self,
        debian_package: str,
        *,
        name: str = "",
        make_default: bool = False,
        replace: bool = False,
        on_progress: Progress | None = None,
    ) -> v1.Kernel:
        """Makes a kernel of a Debian package, which the daemon fetches with the host's apt."""
        start = v1.ImportKernelStart(
            name=name,
            debian_package=debian_package,
            make_default=make_default,
            replace=replace,
            request_id=new_request_id(None),
        )
        kernel: v1.Kernel = await self._caller.upload(
            _methods.IMPORT_KERNEL,
            v1.ImportKernelRequest(start=start),
            iter(()),
            lambda chunk: v1.ImportKernelRequest(kernel_chunk=chunk),
            None,
            "kernel",
            operation_to(on_progress),
        )
        return kernel

    async def import_file(
        self,
        kernel: str | os.PathLike[str] | BinaryIO,
        *,
        modules: str | os.PathLike[str] | None = None,
        name: str = "",
        make_default: bool = False,
        replace: bool = False,
        on_progress: Progress | None = None,
    ) -> v1.Kernel:
        """Makes a kernel of a vmlinux or bzImage with the directory of its modules, or of a kernel bundle. Not repeated
        when the connection breaks.
        """
        start = v1.ImportKernelStart(
            name=name, make_default=make_default, replace=replace, request_id=new_request_id(None)
        )
        if isinstance(kernel, (str, os.PathLike)):
            start.file_name = os.path.basename(os.fspath(kernel))
        chunks: Iterator[Any] = (v1.ImportKernelRequest(kernel_chunk=chunk) for chunk in chunks_of(kernel))
        tar = chunked(pack_content(modules)) if modules is not None else iter(())
        made: v1.Kernel = await self._caller.upload(
            _methods.IMPORT_KERNEL,
            v1.ImportKernelRequest(start=start),
            itertools.chain(chunks, (v1.ImportKernelRequest(modules_chunk=chunk) for chunk in tar)),
            lambda message: message,
            None,
            "kernel",
            operation_to(on_progress),
        )
        return made

    async def export(
        self, kernel: str, path: str | os.PathLike[str], *, on_progress: Callable[[int], object] | None = None
    ) -> v1.ExportEnd:
        """Writes a kernel as a bundle to a file, which appears when it is whole; its size and digest."""
        request = v1.ExportKernelRequest(kernel=kernel)
        stream = self._caller.channel.stream(_methods.EXPORT_KERNEL, request)
        return await save(stream, "ExportKernel", path, on_progress)

    async def get(self, kernel: str) -> v1.Kernel:
        """The one with this id or name."""
        return (await self._caller.repeat(_methods.GET_KERNEL, v1.GetKernelRequest(kernel=kernel))).kernel

    async def list(self) -> AsyncIterator[v1.Kernel]:
        """All kernels, newest first."""
        pages = self._caller.pages(
            _methods.LIST_KERNELS,
            lambda token: v1.ListKernelsRequest(page_size=PAGE_SIZE, page_token=token),
            lambda page: page.kernels,
        )
        async for kernel in pages:
            yield kernel

    async def delete(self, kernel: str) -> None:
        """Removes a kernel, unless a VM uses it."""
        request = v1.DeleteKernelRequest(kernel=kernel, request_id=new_request_id(None))
        await self._caller.repeat(_methods.DELETE_KERNEL, request)


class Catalogs:
    """Where bundles and kernels are fetched from by name."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def add(self, url: str, public_key: str, *, name: str = "") -> v1.Catalog:
        """Adds one with the key that must sign it, and reads it for the first time."""
        request = v1.AddCatalogRequest(name=name, url=url, public_key=public_key, request_id=new_request_id(None))
        return (await self._caller.repeat(_methods.ADD_CATALOG, request)).catalog

    async def get(self, catalog: str) -> v1.Catalog:
        """The one with this name."""
        return (await self._caller.repeat(_methods.GET_CATALOG, v1.GetCatalogRequest(catalog=catalog))).catalog

    async def list(self) -> AsyncIterator[v1.Catalog]:
        """All catalogs, in the order in which names are looked up."""
        pages = self._caller.pages(
            _methods.LIST_CATALOGS,
            lambda token: v1.ListCatalogsRequest(page_size=PAGE_SIZE, page_token=token),
            lambda page: page.catalogs,
        )
        async for catalog in pages:
            yield catalog

    async def refresh(self, catalog: str) -> v1.Catalog:
        """Reads one again."""
        request = v1.RefreshCatalogRequest(catalog=catalog)
        return (await self._caller.repeat(_methods.REFRESH_CATALOG, request)).catalog

    async def remove(self, catalog: str) -> None:
        """Forgets one. What was pulled from it stays."""
        request = v1.RemoveCatalogRequest(catalog=catalog, request_id=new_request_id(None))
        await self._caller.repeat(_methods.REMOVE_CATALOG, request)

    async def entries(self, *, catalog: str = "", query: str = "") -> AsyncIterator[v1.CatalogEntry]:
        """What they offer, by name; `query` has words that name, version or description must have."""
        pages = self._caller.pages(
            _methods.LIST_CATALOG_ENTRIES,
            lambda token: v1.ListCatalogEntriesRequest(
                page_size=PAGE_SIZE, page_token=token, catalog=catalog, query=query
            ),
            lambda page: page.entries,
        )
        async for entry in pages:
            yield entry


class Volumes:
    """Disks that outlive VMs."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def create(
        self,
        name: str,
        *,
        size_mib: int = 0,
        labels: Mapping[str, str] | None = None,
        seed: str = "",
        on_progress: Progress | None = None,
        request_id: str | uuid.UUID | None = None,
    ) -> v1.Volume:
        """Makes one, empty or with the content of `seed`. 0 means 8192 MiB, or the seed's size."""
        request = v1.CreateVolumeRequest(
            name=name,
            labels=dict(labels or {}),
            size_mib=size_mib,
            seed=seed,
            request_id=new_request_id(request_id),
        )

        async def undo(caller: Caller, volume: str) -> None:
            await Volumes(caller).delete(volume)

        volume: v1.Volume = await self._caller.follow(
            _methods.CREATE_VOLUME, request, "volume", on_progress, _made, undo
        )
        return volume

    async def get(self, volume: str) -> v1.Volume:
        """The one with this id or name."""
        return (await self._caller.repeat(_methods.GET_VOLUME, v1.GetVolumeRequest(volume=volume))).volume

    async def list(self, *, labels: Mapping[str, str] | None = None) -> AsyncIterator[v1.Volume]:
        """Those that have all of these labels, newest first."""
        wanted = dict(labels or {})
        pages = self._caller.pages(
            _methods.LIST_VOLUMES,
            lambda token: v1.ListVolumesRequest(page_size=PAGE_SIZE, page_token=token, labels=wanted),
            lambda page: page.volumes,
        )
        async for volume in pages:
            yield volume

    async def update(
        self, volume: str, *, size_mib: int | None = None, labels: Mapping[str, str] | None = None, etag: str = ""
    ) -> v1.Volume:
        """Changes what is given; its size can only grow, while no VM has it."""
        paths = []
        request = v1.UpdateVolumeRequest(volume=volume, etag=etag, request_id=new_request_id(None))
        if size_mib is not None:
            request.size_mib = size_mib
            paths.append("size_mib")
        if labels is not None:
            request.labels.update(labels)
            paths.append("labels")
        request.update_mask.CopyFrom(field_mask_pb2.FieldMask(paths=paths))
        return (await self._caller.repeat(_methods.UPDATE_VOLUME, request)).volume

    async def delete(self, volume: str) -> None:
        """Removes one that no VM names, with what is in it."""
        request = v1.DeleteVolumeRequest(volume=volume, request_id=new_request_id(None))
        await self._caller.repeat(_methods.DELETE_VOLUME, request)
