"""The package as a whole: its version and command, how it is checked and released."""

import importlib.metadata
import os
import pathlib
import re
import shutil
import subprocess
import tomllib

import pytest
import yaml

import jaxloss
from jaxloss import __main__ as module

ROOT = pathlib.Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
WORKFLOWS = {
    path.stem: yaml.safe_load(path.read_text())
    for path in (ROOT / ".github" / "workflows").glob("*.yml")
}
PYTHON = "Programming Language :: Python :: 3."
PYTHONS = [x.split()[-1] for x in PROJECT["classifiers"] if x.startswith(PYTHON)]


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
    """`jaxloss` runs what `python -m jaxloss` runs."""
    (name, value), *others = PROJECT["scripts"].items()
    script = importlib.metadata.EntryPoint(name, value, "console_scripts")
    assert (script.name, others) == ("jaxloss", [])
    assert script.load() is module.main


# --- oldest and newest -------------------------------------------------------------


def pins(lines, sign):
    """Versions by package, of requirements such as `jax==0.10.2`."""
    found = [line.split(sign) for line in lines if re.match(rf"\w+{sign}", line)]
    return dict(found)


def test_the_oldest_versions_are_the_lower_bounds():
    """What is accepted is what the suite runs on."""
    oldest = pins(text(".ci/oldest.txt").splitlines(), "==")
    assert oldest == pins(PROJECT["dependencies"], ">=")
    assert set(oldest) == {"jax", "jaxlib", "optax"}


def test_the_pythons_are_those_of_the_classifiers():
    """The oldest is the lower bound; the workflows run it and the newest."""
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    ends = [(PYTHONS[0], ".ci/oldest.txt"), (PYTHONS[-1], "")]
    for name, job in (("ci", "run"), ("nightly", "full")):
        rows = WORKFLOWS[name]["jobs"][job]["strategy"]["matrix"]["include"]
        assert [(row["python"], row["constraint"]) for row in rows] == ends


def test_the_hooks_have_the_versions_of_the_extra():
    """A commit, a contributor and the workflows have one linter."""
    (repo,) = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]
    hooks = [pins(hook["additional_dependencies"], "==") for hook in repo["hooks"]]
    extra = pins(PROJECT["optional-dependencies"]["dev"], "==")
    assert set(extra) == {"pyright", "ruff"}
    assert {name: x for hook in hooks for name, x in hook.items()} == extra


# --- the workflows -----------------------------------------------------------------


def steps(name):
    return [step for job in WORKFLOWS[name]["jobs"].values() for step in job["steps"]]


def test_the_workflows_run_what_is_here():
    """Each script that a step names is a file that can be run."""
    lines = [line for name in WORKFLOWS for s in steps(name) for line in _lines(s)]
    scripts = {x for line in lines for x in re.findall(r"^\.ci/\w+", line)}
    assert scripts == {".ci/run", ".ci/release", ".ci/releasable"}
    assert not [x for x in scripts if not os.access(ROOT / x, os.X_OK)]
    assert {"ci", "docs", "nightly", "release"} == set(WORKFLOWS)


def _lines(step):
    return [line.strip() for line in step.get("run", "").splitlines()]


def test_the_nightly_run_has_all_cases():
    """In the word that `jaxloss.testing` reads."""
    (suite,) = [x for x in steps("nightly") if "pytest" in x.get("run", "")]
    assert suite["env"] == {"JAXLOSS_CHECKS": "full"}
    assert '"full"' in text("jaxloss/testing/accuracy.py")


def test_a_release_needs_no_secret():
    """Only the step that publishes may ask for an identity, after what is checked."""
    jobs = WORKFLOWS["release"]["jobs"]
    assert "secrets." not in text(".github/workflows/release.yml")
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["needs"] == "build"
    assert "permissions" not in jobs["build"]
    for name, workflow in WORKFLOWS.items():
        assert workflow["permissions"] == {"contents": "read"}, name


# --- a release ---------------------------------------------------------------------


@pytest.fixture
def releasable(tmp_path):
    """A copy of the files that a release is about, ready; and what refuses it."""
    for name in (".ci/releasable", "pyproject.toml", "CITATION.cff", "CHANGELOG.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("jaxloss/__init__.py", "docs/changelog.d/README.md"):
        (tmp_path / name).parent.mkdir(parents=True)
        shutil.copy(ROOT / name, tmp_path / name)
    edit = tmp_path / "pyproject.toml"
    table = '[project.urls]\nSource = "https://example.org"\n'
    edit.write_text(re.sub(r"\[project\.urls\]\n", table, edit.read_text()))

    def refused(tag=f"v{jaxloss.__version__}"):
        command = ["bash", str(tmp_path / ".ci" / "releasable"), tag]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert bool(done.returncode) == bool(done.stderr)
        return done.stderr

    return tmp_path, refused


def test_what_is_ready_can_be_released(releasable):
    """The tag is the version, and everything says so."""
    _, refused = releasable
    assert refused() == ""


def replaced(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_what_is_not_ready_is_refused(releasable):
    """One after the other: each has its own reason."""
    folder, refused = releasable
    version = jaxloss.__version__
    assert "the tag is v9.9.9, but jaxloss" in refused("v9.9.9")
    replaced(folder / "pyproject.toml", '\nSource = "https://example.org"', "")
    assert "[project.urls] of pyproject.toml is empty" in refused()
    (folder / "docs" / "changelog.d" / "mine.md").write_text("* Something.")
    assert "docs/changelog.d has entries" in refused()
    replaced(folder / "CHANGELOG.md", f"## {version}", "## 0.0.9")
    assert f"CHANGELOG.md has no section '## {version}'" in refused()
    replaced(folder / "CITATION.cff", f"version: {version}", "version: 0.0.9")
    assert f"CITATION.cff has another version than {version}" in refused()


# --- the files ---------------------------------------------------------------------


def test_the_source_distribution_has_what_it_names():
    """A file that was moved is missed here, not by whoever unpacks it."""
    names = PYPROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert not [name for name in names if not (ROOT / name).exists()]
    pages = {path.name for path in ROOT.glob("*.md")} - {"README.md"}
    assert pages <= set(names)


def test_the_tree_of_contributing_is_that_of_the_package():
    """Each folder and module that it draws exists, and no family is missing."""
    (tree,) = re.findall(r"```text\n(jaxloss/.*?)```", text("CONTRIBUTING.md"), re.S)
    folders: list[str] = []
    drawn = set()
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        names = re.match(r"\s*((?:[\w/]+(?:/|\.py) ?)+)", line)
        assert names, line
        paths = ["".join([*folders[:depth], name]) for name in names[1].split()]
        folders = [*folders[:depth], paths[0].removeprefix("".join(folders[:depth]))]
        drawn |= set(paths)
    assert not [path for path in drawn if not (ROOT / path).exists()]
    losses = ROOT / "jaxloss" / "losses"
    families = {p.name for p in losses.iterdir() if p.is_dir() and p.name[0] != "_"}
    assert families <= {path.split("/")[2] for path in drawn if path.count("/") == 3}
