from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from pycaffe import cli


def test_help_is_quick_and_names_every_verb() -> None:
    code = (
        "import sys; from pycaffe.cli import main\n"
        "try: main(['--help'])\n"
        "finally: print([name for name in ('numpy', 'google.protobuf', 'onnxruntime') if name in sys.modules])"
    )
    text = subprocess.check_output([sys.executable, "-c", code], text=True)
    verbs = [path.stem for path in pathlib.Path(cli.__file__).parent.glob("*.py") if not path.stem.startswith("_")]
    assert "classify" in verbs
    assert all(f"\n  {verb} " in text for verb in verbs)
    assert text.endswith("[]\n")


def test_an_unknown_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["clasify"])
    assert "No such command 'clasify'" in capsys.readouterr().err
