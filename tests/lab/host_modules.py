# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cache the bytecode of Ansible's modules, which halves the time of a task on a host.

Ansible sends each module with its libraries as a zip file, and zipimport compiles all of it, about fifty files, in each
task. `tests/lab/lab` installs this file on the hosts, where a `.pth` file imports it whenever the system's Python
starts. The same code runs as without the cache. Virtualenvs, such as an app's, are not affected.
"""

import _imp
import marshal
import os
import sys
import zipimport

CACHE = "/var/cache/lab-modules"


def install():
    """Make zipimport use the cache."""
    compile_source = zipimport._compile_source

    def cached(path, source):
        # Ansible's archive is ansible_<module>_payload_<random>/ansible_<module>_payload.zip.
        inside = path.partition("_payload.zip/")[2]
        if not inside:
            return compile_source(path, source)
        # Each user has a separate cache, and never runs bytecode of another user.
        folder = f"{CACHE}/{os.geteuid()}"
        digest = _imp.source_hash(sys.hexversion, bytes(source)).hex()
        file = f"{folder}/{digest}-{inside.replace('/', '.')}"
        try:
            with open(file, "rb") as stream:
                if os.fstat(stream.fileno()).st_uid == os.geteuid():
                    return marshal.loads(stream.read())
        except OSError:
            pass
        code = compile_source(path, source)
        part = f"{file}.{os.getpid()}"
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            with open(part, "xb") as stream:
                stream.write(marshal.dumps(code))
            os.rename(part, file)
        except OSError:
            pass  # the disk is read-only or full: the next task compiles again
        return code

    zipimport._compile_source = cached


install()
