"""Packaging of kd_det: what it imports, and what its extras are for."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
VERSION = (HERE / "kd_det" / "version.py").read_text(encoding="utf-8").split('"')[-2]


class WithConfigs(build_py):
    """Puts configs and tools where mim looks in a package; an editable one has the clone's."""

    def run(self) -> None:
        super().run()
        if not getattr(self, "editable_mode", False):  # setuptools before 64 has no such mode
            mim = Path(self.build_lib) / "kd_det" / ".mim"
            shutil.rmtree(mim, ignore_errors=True)  # of an earlier build
            for folder in ("configs", "tools"):
                shutil.copytree(
                    HERE / folder, mim / folder, ignore=shutil.ignore_patterns("__pycache__", ".*")
                )
            shutil.copy(HERE / "model-index.yml", mim)


setup(
    name="kd_det",
    version=VERSION,
    description="Knowledge distillation for MMDetection: ReviewKD, ND loss (KD++) and KD",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    cmdclass={"build_py": WithConfigs},
    packages=find_packages(include=["kd_det", "kd_det.*"]),
    package_data={"kd_det.report": ["*.j2"]},
    entry_points={"console_scripts": ["kd-det = kd_det.commands:main"]},
    python_requires=">=3.9",
    # Wide, so that installing changes nothing where mmdet 3.x already runs. The lower bounds are
    # the versions in requirements/oldest.txt, which the tests are run with. opencv comes with
    # mmengine: naming one of its builds would put it beside another.
    install_requires=[
        "torch>=2.0",
        "torchvision>=0.15",
        "mmengine>=0.8,<0.11",
        "mmdet>=3.0,<3.4",
        "mmrazor>=1.0,<1.1",
        "filelock>=3.12",
        "joblib>=1.2",  # mmrazor imports it without declaring it
        "numpy>=1.23",
        "pillow>=9.5",
        "pyyaml>=5.4",
        "rich>=12.6",
        "safetensors>=0.4",
        "wrapt>=1.14",
    ],
    extras_require={
        # Either this or a compiled mmcv, which is used when it is there; mmdet says which fits.
        "lite": ["mmcv-lite>=2.0,<2.2"],
        # timm has the teacher of mmrazor's config for DeiT.
        "cls": ["mmpretrain>=1.0,<1.3", "timm>=0.9"],
        "demo": ["scikit-learn>=1.1"],
        "report": ["jinja2>=3.0", "matplotlib>=3.6"],
        # onnxruntime checks what onnx writes; kd-det export --format onnx needs both.
        "onnx": ["onnx>=1.14", "onnxruntime>=1.15"],
        "docs": [
            "latex2mathml>=3.81.1",
            "mkdocs>=1.6.1",
            "mkdocstrings[python]>=1.0.8",
            "pymdown-extensions>=13.1",
        ],
        "test": ["hypothesis>=6.100", "packaging>=23", "pytest>=8", "pytest-xdist>=3.5"],
        "dev": ["import-linter>=2.17", "mypy>=2.4", "ruff>=0.17"],
    },
)
