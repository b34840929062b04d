"""Write the versions installed in this environment to `requirements.lock`."""

import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).parents[1] / "requirements.lock"
HEADER = """\
# Exact versions that `make` installs and CI tests: pip's constraints format, any platform.
# Renew with `make lock`.
"""
INSTALLERS = ("pip==", "setuptools==", "wheel==")


def pinned(freeze: str) -> list[str]:
    """Drop the installers, and the build tag of versions such as 2.13.0+cpu."""
    return [
        line.partition("+")[0]
        for line in freeze.splitlines()
        if "==" in line and not line.startswith(INSTALLERS)
    ]


def main() -> None:
    command = [sys.executable, "-m", "pip", "freeze", "--exclude-editable"]
    freeze = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    LOCK.write_text(HEADER + "\n".join(pinned(freeze)) + "\n", encoding="utf-8")
    print(f"wrote {LOCK.name}")


if __name__ == "__main__":
    main()
