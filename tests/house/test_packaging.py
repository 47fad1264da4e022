"""What is said of the package as a whole: its version, its command, its licence."""

import importlib.metadata
import pathlib
import re
import subprocess
import sys
import tomllib

import jaxloss
from jaxloss import __main__ as module

ROOT = pathlib.Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]


def text(name):
    return (ROOT / name).read_text()


# --- version -----------------------------------------------------------------------


def test_the_version_is_in_one_place():
    """The build and the site read it in the package; a citation repeats it."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", jaxloss.__version__)
    assert "version" not in PROJECT
    assert PROJECT["dynamic"] == ["version"]
    assert PYPROJECT["tool"]["hatch"]["version"] == {"path": "jaxloss/__init__.py"}
    assert "\nrelease = jaxloss.__version__\n" in text("docs/conf.py")
    assert f"\nversion: {jaxloss.__version__}\n" in text("CITATION.cff")


def test_the_changelog_has_the_version():
    """The newest heading is the version of the package."""
    newest = re.search(r"^## (.+)$", text("CHANGELOG.md"), re.MULTILINE)
    assert newest
    assert newest[1].split()[0] == jaxloss.__version__


# --- the command -------------------------------------------------------------------


def test_the_command_is_the_module():
    """`jaxloss` runs what `python -m jaxloss` runs, broken pipes included."""
    (name, value), *others = PROJECT["scripts"].items()
    script = importlib.metadata.EntryPoint(name, value, "console_scripts")
    assert (script.name, others) == ("jaxloss", [])
    assert script.load() is module.main


def test_the_command_ends_quietly_where_nobody_reads():
    """As the script that an installer writes: `sys.exit(main())`; 141, no traceback."""
    code = "import sys; from jaxloss.__main__ import main; sys.exit(main())"
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code, "list"]
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as listing:
        assert listing.stdout
        assert listing.stderr
        listing.stdout.close()
        assert listing.stderr.read() == ""
        assert listing.wait(timeout=120) == 141
