"""Named contexts, and results as files: what our own client offers beyond the classic builder."""

from __future__ import annotations

import json
import tarfile
import uuid
from pathlib import Path

import pytest

from tests.daemon import Daemon

TEXT = """FROM base AS one
COPY --from=other /sub/f /f
COPY . /main
RUN --mount=from=other,target=/m cat /m/l; ls -a /main /m
FROM other AS two
COPY --from=one /f /g
"""


@pytest.fixture
def contexts(tmp_path: Path) -> Path:
    (tmp_path / "main").mkdir()
    (tmp_path / "other" / "sub").mkdir(parents=True)
    (tmp_path / "main" / "Dockerfile").write_text(TEXT)
    (tmp_path / "other" / "sub" / "f").write_text(uuid.uuid4().hex)
    (tmp_path / "other" / "l").symlink_to("sub/f")
    (tmp_path / "other" / "ignored").write_text("")
    (tmp_path / "other" / ".dockerignore").write_text("ignored\n")
    return tmp_path


def flags(contexts: Path) -> list[str]:
    return ["--build-context", "base=docker-image://busybox", "--build-context", f"other={contexts / 'other'}"]


def test_named_contexts_are_images_and_directories(daemon: Daemon, contexts: Path) -> None:
    said = daemon.enisle("build", "--target", "one", *flags(contexts), str(contexts / "main")).stdout
    assert (contexts / "other" / "sub" / "f").read_text() in said
    assert "/m:\n.\n..\n.dockerignore\nl\nsub\n\n/main:\n.\n..\nDockerfile\n" in said
    override = daemon.enisle(
        "build",
        "--build-context",
        "one=docker-image://busybox",
        *flags(contexts)[2:],
        str(contexts / "main"),
        check=False,
    )
    assert "stat f: file does not exist" in override.stdout + override.stderr  # the image, not the stage of that name


@pytest.mark.parametrize("value", ["/no/such", "ftp://x/y", "docker-image://no/such:image@x"])
def test_named_contexts_that_are_refused(daemon: Daemon, contexts: Path, value: str) -> None:
    done = daemon.enisle(
        "build", "--build-context", f"base={value}", *flags(contexts)[2:], str(contexts / "main"), check=False
    )
    assert done.returncode and "Traceback" not in done.stderr and done.stderr.startswith("enisle: ")


def test_results_as_a_directory_and_as_tars(daemon: Daemon, contexts: Path) -> None:
    main = str(contexts / "main")
    out = contexts / "out"
    daemon.enisle("build", "-o", str(out), *flags(contexts), main)
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*")) == [".dockerignore", "g", "l", "sub", "sub/f"]
    assert (out / "g").read_text() == (out / "l").read_text()
    daemon.enisle("build", "-o", f"type=tar,dest={contexts / 'out.tar'}", *flags(contexts), main)
    with tarfile.open(contexts / "out.tar") as tar:
        assert tar.getnames() == [".dockerignore", "g", "l", "sub", "sub/f"]
    loadable = contexts / "image.tar"
    daemon.enisle("build", "-o", f"type=docker,dest={loadable}", "-t", "delivered", *flags(contexts), main)
    with tarfile.open(loadable) as tar:
        assert "manifest.json" in tar.getnames()
    layout = contexts / "layout"
    daemon.enisle("build", "-o", f"type=oci,dest={layout},tar=false", "-t", "delivered", *flags(contexts), main)
    [entry] = json.loads((layout / "index.json").read_text())["manifests"]
    manifest = json.loads((layout / "blobs" / entry["digest"].replace(":", "/")).read_text())
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == "latest"
    for blob in (manifest["config"], *manifest["layers"]):
        assert (layout / "blobs" / blob["digest"].replace(":", "/")).stat().st_size == blob["size"]
    daemon.docker("rmi", "delivered")
    for output in ("type=squashfs,dest=x", "type=oci,tar=false", "type=docker,dest=x,tar=false"):
        assert "invalid --output" in daemon.enisle("build", "-o", output, main, check=False).stderr
