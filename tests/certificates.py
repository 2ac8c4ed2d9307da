"""Certificates for tests: an authority of their own, a server on loopback, clients."""

from __future__ import annotations

from pathlib import Path

from tests.daemon import run


class Authority:
    """Issues certificates as files of a directory."""

    def __init__(self, directory: Path, name: str = "test authority") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.ca = directory / "ca.pem"
        run(
            *_NEW,
            "-x509",
            "-days",
            "2",
            "-subj",
            f"/CN={name}",
            "-keyout",
            f"{directory}/ca-key.pem",
            "-out",
            str(self.ca),
        )

    def issue(self, name: str, *, server: bool = False) -> Path:
        """A directory with ca.pem, cert.pem and key.pem, as Docker's client wants it."""
        place = self.directory / name
        place.mkdir()
        (place / "ca.pem").write_bytes(self.ca.read_bytes())
        request = place / "request.pem"
        run(*_NEW, "-subj", f"/CN={name}", "-keyout", f"{place}/key.pem", "-out", str(request))
        usage = "serverAuth" if server else "clientAuth"
        extensions = place / "extensions"
        extensions.write_text(f"subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage={usage}\n")
        signer = ("-CA", str(self.ca), "-CAkey", f"{self.directory}/ca-key.pem", "-CAcreateserial")
        named = ("-in", str(request), "-out", f"{place}/cert.pem", "-extfile", str(extensions))
        run("openssl", "x509", "-req", "-days", "2", *signer, *named)
        return place


_NEW = ("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
