"""Every service has the same files, within the same sizes, and keeps the rules that a linter cannot check."""

import ast
import pkgutil
import re
import subprocess
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from dozen_chassis.errors import ServiceError
from dozen_chassis.settings import AdmittedSettings, ServiceSettings

ROOT = Path(__file__).parents[2]
SERVICES = sorted(path.name for path in (ROOT / "services").iterdir() if (path / "pyproject.toml").exists())
LIBRARIES = ["chassis", "inference", "testing"]

# The files of a service and about as many lines as they may have; see CONTRIBUTING.md. One that outgrows its
# limit becomes a package of nouns under the same name.
LIMITS = {
    "__init__": 5,
    "__main__": 15,
    "app": 120,
    "settings": 60,
    "errors": 60,
    "domain": 200,
    "service": 300,
    "repository": 250,
    "schemas": 200,
    "routes": 200,
    "servicer": 200,
    "handlers": 150,
    "clients": 150,
}
# What one service has beyond that, because it does what no other does.
FURTHER = {
    "audio": {"codec": 200, "speaker": 200, "transcriber": 200},
    "credits": {"reconcile": 150},
    "embeddings": {"encoder": 200, "moderator": 200},
    "gateway": {"edge": 200},
    "images": {"reader": 200},
    "storage": {"form": 200, "objects": 200, "upload": 200},
}
NO_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers", "base"}


def _tracked(*patterns: str) -> list[Path]:
    # Untracked files count too, so that the answer is the same before a commit and after it.
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def _own_settings(service: str) -> dict[str, str | None]:
    settings = import_module(f"dozen_{service}.settings").Settings
    common = {**ServiceSettings.model_fields, **AdmittedSettings.model_fields}
    return {
        f"DOZEN_{name.upper()}": field.description
        for name, field in settings.model_fields.items()
        if name not in common
    }


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_the_files_of_every_service(service: str) -> None:
    home = ROOT / "services" / service
    assert {"README.md", "pyproject.toml", "src", "tests"} <= {path.name for path in home.iterdir()}
    package = home / "src" / f"dozen_{service}"
    limits = LIMITS | FURTHER.get(service, {})
    for path in package.rglob("*.py"):
        module = path.relative_to(package).parts[0].removesuffix(".py")
        assert module in limits, (
            f"{path.relative_to(ROOT)}: a service has no {module}; see LIMITS and FURTHER"
        )
        assert _lines(path) <= limits[module], f"{path.relative_to(ROOT)}: more than {limits[module]} lines"
    for needed in ("__main__", "app", "settings"):
        assert (package / f"{needed}.py").exists(), f"{service} has no {needed}.py"


@pytest.mark.parametrize("service", SERVICES)
def test_a_readme_is_short_and_lists_the_settings(service: str) -> None:
    readme = ROOT / "services" / service / "README.md"
    assert _lines(readme) <= 60
    rows = re.findall(r"^\| `(DOZEN_\w+)` \|(?:[^|]*\|)? ([^|]+) \|$", readme.read_text(), re.MULTILINE)
    assert dict(rows) == _own_settings(service)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_a_contract_and_says_what_it_owns(service: str) -> None:
    package = import_module(f"dozen_{service}")
    assert package.__doc__
    assert package.__doc__.count("\n") == 0
    assert list((ROOT / "protos" / "dozen" / service / "v1").glob("*_service.proto"))


@pytest.mark.parametrize("service", SERVICES)
def test_migrations_are_numbered_without_a_gap(service: str) -> None:
    names = sorted(path.name for path in (ROOT / "services" / service / "migrations").glob("*"))
    numbers = [int(re.fullmatch(r"(\d{4})_(pre|post)_[a-z0-9_]+\.sql", name)[1]) for name in names]  # type: ignore[index]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_one_noun_a_module(library: str) -> None:
    modules = list((ROOT / "libs" / library / "src").rglob("*.py"))
    for path in modules:
        assert _lines(path) <= 250, f"{path.relative_to(ROOT)} is too long"
    if library == "chassis":
        assert sum(map(_lines, modules)) <= 2600, "the chassis has grown a second purpose"


def test_no_package_has_code_in_its_init() -> None:
    for path in _tracked("*/__init__.py"):
        body = ast.parse(path.read_text()).body
        assert len(body) == 1, f"{path.relative_to(ROOT)}: one docstring and nothing else"
        assert isinstance(body[0], ast.Expr), f"{path.relative_to(ROOT)}: one docstring and nothing else"


def test_every_file_is_named_by_what_it_holds() -> None:
    for path in _tracked("*.py", "*.sql", "*.proto"):
        assert path.stem not in NO_NAMES, f"{path.relative_to(ROOT)}: name it by its noun"


def test_every_error_has_a_message() -> None:
    for package in [f"dozen_{name}" for name in (*SERVICES, *LIBRARIES)]:
        if spec := find_spec(f"{package}.errors"):
            for module in pkgutil.iter_modules(spec.submodule_search_locations or []):
                import_module(f"{package}.errors.{module.name}")
            import_module(f"{package}.errors")
    silent = [error for error in _subclasses(ServiceError) if not error.__dict__.get("__doc__")]
    assert not silent


def test_tests_wait_for_conditions_and_not_for_time() -> None:
    for path in _tracked("*/tests/*.py", "tests-e2e/**/*.py"):
        found = re.search(r"\bsleep\((?!0\))", path.read_text())
        assert not found, f"{path.relative_to(ROOT)} sleeps"


def test_scripts_are_one_verb_each() -> None:
    for path in _tracked("scripts/*"):
        assert _lines(path) <= 40, f"{path.relative_to(ROOT)}: more than 40 lines"


def test_no_file_knows_a_registry_or_somebodys_machine() -> None:
    elsewhere = re.compile(
        r"pypi[.]org|pythonhosted[.]|registry[.]npmjs|deb[.]debian|/root[/]|/work[/]|/home[/]\w"
    )
    for path in _tracked("."):
        found = elsewhere.search(path.read_bytes().decode(errors="replace"))
        assert not found, f"{path.relative_to(ROOT)}: {found and found[0]}"


def _subclasses(kind: type[ServiceError]) -> set[type[ServiceError]]:
    return {kind}.union(*map(_subclasses, kind.__subclasses__()))
