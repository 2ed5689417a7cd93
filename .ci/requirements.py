"""Print the requirements of the package and of the extras named, one a word, for pip."""

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:  # pip brings the same parser
    from pip._vendor import tomli as tomllib

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
print(" ".join(project["dependencies"] + [need for extra in sys.argv[1:] for need in extras[extra]]))
