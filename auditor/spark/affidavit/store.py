"""A store, read only: a folder, or an address that pyarrow's file systems know (`s3://`, `gs://`, `abfss://`, `hdfs://`)."""

import os
import stat
from pathlib import Path

LEFTOVERS = (".tmp", ".affidavit-probe")


class TooLarge(OSError):
    """An object over the limit of what is read whole."""


class Store:
    """Listed by the driver, read by the tasks: what it holds is its address, and it opens anew wherever it is sent."""

    def __init__(self, address):
        address = str(address).replace("s3a://", "s3://", 1)
        self.address = address if "://" in address else os.path.abspath(address)
        self._opened = None

    def __getstate__(self):
        return {"address": self.address, "_opened": None}

    def _remote(self):
        """The file system and the prefix below which the store lies; None for a folder."""
        if "://" not in self.address:
            return None
        if self._opened is None:
            from pyarrow import fs

            self._opened = fs.FileSystem.from_uri(self.address)
        return self._opened

    def entries(self):
        """(folder, name, length, kind) of everything below, folders aside; kind is `file`, `link` or `other`."""
        remote = self._remote()
        if remote is None:
            yield from self._walk()
            return
        from pyarrow import fs

        files, prefix = remote
        for info in files.get_file_info(fs.FileSelector(prefix, recursive=True, allow_not_found=True)):
            if info.type != fs.FileType.Directory:
                folder, _, name = info.path[len(prefix):].lstrip("/").rpartition("/")
                yield folder, name, info.size, "file"

    def _walk(self):
        root = Path(self.address)
        if not root.is_dir():
            raise NotADirectoryError(f"`{self.address}` is no folder")

        def failed(error):
            raise error

        for folder, below, names in os.walk(root, onerror=failed):
            at = Path(folder).relative_to(root).as_posix()
            links = [name for name in below if os.path.islink(os.path.join(folder, name))]
            for name in [*names, *links]:
                found = os.lstat(os.path.join(folder, name))
                kind = "link" if stat.S_ISLNK(found.st_mode) else "file" if stat.S_ISREG(found.st_mode) else "other"
                yield "" if at == "." else at, name, found.st_size, kind

    def read(self, name, limit):
        """All bytes of an object."""
        remote = self._remote()
        if remote is None:
            with open(os.path.join(self.address, name), "rb") as file:
                data = file.read(limit + 1)
        else:
            with remote[0].open_input_stream(f"{remote[1]}/{name}") as stream:
                data = stream.read(limit + 1)
        if len(data) > limit:
            raise TooLarge(f"more than {limit} bytes")
        return data

    def pieces(self, name):
        """The bytes of an object, a mebibyte at a time."""
        remote = self._remote()
        path = os.path.join(self.address, name)
        with open(path, "rb") if remote is None else remote[0].open_input_stream(f"{remote[1]}/{name}") as file:
            while piece := file.read(1 << 20):
                yield piece

    def has(self, name):
        """Whether there is such an object."""
        try:
            next(self.pieces(name), b"")
        except OSError:
            return False
        return True
