"""What CITATION.cff and _config.yml say of the book, and so of the package.

The README's links lead to the repository, as it was at this version: on PyPI no file is beside it.
"""

import re
from pathlib import Path

import yaml
from setuptools import setup

ROOT = Path(__file__).parent
citation, config = (
    yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    for name in ("CITATION.cff", "_config.yml")
)
version = str(citation["version"])
readme = (ROOT / "README.md").read_text(encoding="utf-8")
repository = config["repository"]["url"].removesuffix("/").removesuffix(".git")
site = config["html"]["baseurl"]
if repository:
    here = r"\]\((?!\w+:|#)"
    readme = re.sub(rf"(!\[[^]]*){here}", rf"\1]({repository}/raw/v{version}/", readme)
    readme = re.sub(here, f"]({repository}/blob/v{version}/", readme)
addresses = {"Documentation": site, "Source": repository}

setup(
    version=version,
    author=", ".join(
        " ".join(author[part] for part in ("given-names", "family-names", "name") if part in author)
        for author in citation["authors"]
    ),
    long_description=readme,
    long_description_content_type="text/markdown",
    project_urls={name: address for name, address in addresses.items() if address},
)
