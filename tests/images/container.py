"""One of our images as a container: no engine, only the kernel's walls, put up by crun.

As it is meant to be run (module-manifests/README.md): user 10001, no capability, no new privileges,
a read-only root, /tmp and /dev/shm in memory, one writable volume.  Its network is this machine's,
so that it finds the broker of a test.  Foreign images run under qemu, which the kernel starts.
"""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

import agent

ROOT = Path(__file__).resolve().parents[2]
STORE = ROOT / ".cache" / "images"
USER = 10001


def buildah(*args: str) -> str:
    """What buildah says, of the store that scripts/images fills."""
    store = ["--storage-driver", "vfs", "--root", STORE / "store", "--runroot", STORE / "run"]
    done = subprocess.run(["buildah", *store, *args], check=True, capture_output=True, text=True)
    return done.stdout.strip()


class Image:
    """An image that was built, and a mounted copy of it.  Skips aloud where it was not."""

    def __init__(self, platform: str) -> None:
        name = f"localhost/edge-model-agent:{agent.__version__}-{platform}"
        for tool in ("buildah", "crun"):
            if not shutil.which(tool):
                pytest.skip(f"{tool} is not installed; scripts/images says what it needs")
        try:
            about = json.loads(buildah("inspect", "--type", "image", name))
        except subprocess.CalledProcessError:
            pytest.skip(f"{name} is not built here; run: make images")
        self.config = about["Docker"]["config"]
        self.architecture = about["OCIv1"]["architecture"]
        self._container = buildah("from", "--pull-never", name)
        self.root = Path(buildah("mount", self._container))

    def size(self) -> int:
        """Bytes of all its files."""
        files = (p.lstat() for p in self.root.rglob("*"))
        return sum(stat.st_size for stat in files)

    def close(self) -> None:
        buildah("rm", self._container)


class Container:
    """A running container of `image`.

    Args:
        data: the folder that becomes /data.
        mounts: more folders or files, read-only, by their path inside.
        env: over the image's own.
        command: instead of the image's own.
    """

    def __init__(self, image, folder, *, data, mounts=(), env=(), command=()):
        self.name = f"edge-{os.getpid()}-{time.time_ns()}"
        data.mkdir(exist_ok=True)
        os.chown(data, USER, USER)
        command = list(command) or image.config["Cmd"]
        settings = dict(pair.split("=", 1) for pair in image.config["Env"]) | dict(env)
        binds = [("/data", data, "rw"), *((at, path, "ro") for at, path in dict(mounts).items())]
        bundle = folder / self.name
        bundle.mkdir()
        (bundle / "config.json").write_text(
            json.dumps(
                {
                    "ociVersion": "1.0.0",
                    "process": {
                        "user": {"uid": USER, "gid": USER},
                        "args": [*image.config["Entrypoint"], *command],
                        "env": [f"{key}={value}" for key, value in settings.items()],
                        "cwd": image.config["WorkingDir"] or "/",
                        "capabilities": {},
                        "noNewPrivileges": True,
                        "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
                    },
                    "root": {"path": str(image.root), "readonly": True},
                    "mounts": [
                        {"destination": "/proc", "type": "proc", "source": "proc"},
                        _memory("/dev", "mode=755", "size=64k"),
                        _memory("/dev/shm", "noexec", "nodev", "mode=1777", "size=256m"),
                        _memory("/tmp", "noexec", "nodev", "mode=1777", "size=64m"),
                        *(
                            {
                                "destination": at,
                                "type": "bind",
                                "source": str(path),
                                "options": ["rbind", mode, "nosuid", "nodev"],
                            }
                            for at, path, mode in binds
                        ),
                    ],
                    "linux": {"namespaces": [{"type": t} for t in ("pid", "ipc", "uts", "mount")]},
                }
            )
        )
        self.log = folder / f"{self.name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*_CRUN, "run", "--bundle", bundle, self.name], stdout=log, stderr=log
            )

    def execute(self, *args):
        """Run a command inside; its exit status and what it said."""
        run = [*_CRUN, "exec", "--user", f"{USER}:{USER}", self.name, *args]
        done = subprocess.run(run, check=False, capture_output=True, text=True, timeout=120)
        return done.returncode, done.stdout + done.stderr

    def stop(self, seconds=60):
        """As `docker stop`; its exit status."""
        subprocess.run([*_CRUN, "kill", self.name, "TERM"], check=False, capture_output=True)
        try:
            return self.process.wait(seconds)
        finally:
            self.close()

    def close(self):
        subprocess.run([*_CRUN, "delete", "--force", self.name], check=False, capture_output=True)
        self.process.wait(20)


# In a mount namespace of its own, where there are no control groups: crun 1.8, which Debian 12 has,
# does not start where both versions of them are mounted, and none is needed here.
_CRUN = [
    *("unshare", "--mount", "--propagation", "private", "sh", "-c"),
    'mount -t tmpfs none /sys/fs/cgroup && exec crun --cgroup-manager=disabled "$@"',
    "crun",
]


def _memory(at, *options):
    return {
        "destination": at,
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", *options],
    }
