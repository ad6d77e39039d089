"""Fetch onnxruntime-web from the npm registry and put what the page needs of it beside the page.

python tools/vendor_web.py

The version is pinned, and the package must have the digest below. Only the wasm backend is taken: two files, 14 MB.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from lentigo.core.errors import DataError, LentigoError
from lentigo.core.files import write_atomic, write_text_atomic

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
VENDOR = Path(__file__).parents[1] / "src" / "lentigo" / "deploy" / "web" / "vendor"
LICENCE = f"""{PACKAGE} {VERSION}, from https://www.npmjs.com/package/{PACKAGE}
Package sha512 (base64): {SHA512}

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def vendor(folder: Path) -> Path:
    """Fill a folder with the runtime and its licence, unless it holds them already.

    Raises:
        DataError: where npm is missing or fails, or the package is not the pinned one.
    """
    licence = folder / "LICENCE.txt"
    if licence.is_file() and licence.read_text(encoding="utf-8") == LICENCE:
        return folder  # written last, and it names the version
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("expected the program npm; found none", "Install Node.js 18 or newer.")
    with tempfile.TemporaryDirectory() as name:
        command = [npm, "pack", "--silent", "--pack-destination", name, f"{PACKAGE}@{VERSION}"]
        found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=name)
        if found.returncode:
            raise DataError(f"npm could not fetch {PACKAGE} {VERSION}: {found.stderr.strip()}", "Check the network.")
        package = next(Path(name).glob("*.tgz"))
        digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
        if digest != SHA512:
            raise DataError(f"{package.name} has the sha512 {digest}; expected {SHA512}", "Do not use this package.")
        with tarfile.open(package) as archive:
            for file in FILES:
                member = archive.extractfile(f"package/dist/{file}")
                assert member is not None
                write_bytes(folder / file, member.read())
    write_text_atomic(licence, LICENCE)
    return folder


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomic(path, write)


if __name__ == "__main__":
    try:
        print(vendor(VENDOR))
    except LentigoError as error:
        sys.exit(str(error))
